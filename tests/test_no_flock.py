"""File systems without flock, as a Lustre that is mounted without it: every lock of ours works
there, and the doctor says what the hub's libraries do. A preloaded library stands in for the file
system.
"""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT

FLOCK = """
#include <errno.h>
#include <stdlib.h>
int flock(int file, int operation) { errno = atoi(getenv("FLOCK_ERRNO")); return -1; }
"""
NAMES = [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK]
Run = Callable[..., subprocess.CompletedProcess[str]]

each_error = pytest.mark.parametrize("error", NAMES, ids=lambda number: errno.errorcode[number])


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library whose flock fails with FLOCK_ERRNO."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    folder = tmp_path_factory.mktemp("flock")
    (folder / "flock.c").write_text(FLOCK)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", "flock.so", "flock.c"], cwd=folder, check=True)
    return folder / "flock.so"


@pytest.fixture
def without_flock(library: Path, tmp_path: Path) -> Run:
    """Runs a command where flock fails with an error; ``home`` is HF_HOME."""

    def run(error: int, *words: str, cwd: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        variables = os.environ | {
            "LD_PRELOAD": str(library),
            "FLOCK_ERRNO": str(error),
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": str(ROOT),
        }
        return subprocess.run(words, cwd=cwd, env=variables, capture_output=True, text=True)

    return run


LOCK = """
import sys
from pathlib import Path
from common.files import Locked, write_lock
path = Path("run") / "run.lock"
with write_lock(path):
    if sys.argv[1:]:
        try:
            with write_lock(path):
                raise SystemExit("two writers")
        except Locked:
            print("one writer")
with write_lock(path):
    print("again")
"""


@each_error
def test_our_lock_needs_no_flock(error: int, without_flock: Run) -> None:
    done = without_flock(error, sys.executable, "-c", LOCK, "twice")
    assert (done.returncode, done.stdout) == (0, "one writer\nagain\n"), done.stderr


HUB = """
from pathlib import Path
from huggingface_hub.utils import WeakFileLock
with WeakFileLock("hub.lock"):
    print("locked")
"""


LOOK = """
import json
from dataclasses import asdict
from pathlib import Path
from trainer.doctor.disk import locks
here = Path.cwd()
places = {"run.root": here / "runs", "data.dir": here / "data", "HF_HOME": here / "home"}
print(json.dumps(asdict(locks(places))))
"""


@each_error
def test_the_doctor_says_what_the_hubs_locks_do(
    error: int, without_flock: Run, tmp_path: Path
) -> None:
    done = without_flock(error, sys.executable, "-c", HUB)
    found = json.loads(without_flock(error, sys.executable, "-c", LOOK).stdout)
    assert (done.returncode == 0) == (error == errno.ENOSYS), done.stderr
    assert found["level"] == ("ok" if error == errno.ENOSYS else "warning")
    for name in ("run.root", "data.dir", "HF_HOME"):
        assert f"no flock in {name} ({tmp_path}: {os.strerror(error)})" in found["cause"]
    if error == errno.ENOSYS:
        assert f"rm -r {tmp_path}/home/hub/.locks" in found["cause"]
    else:
        assert found["fix"].startswith("set HF_HOME to a folder on another file system")
    assert list(tmp_path.glob(".doctor*")) == []


def test_a_dataset_is_built_without_flock(without_flock: Run, tmp_path: Path) -> None:
    words = (
        "-m",
        "warmstart",
        "data",
        "tiny",
        "data.arithmetic.problems=100",
        "data.spare_share=0",
    )
    done = without_flock(errno.EOPNOTSUPP, sys.executable, *words)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "data" / "tiny" / "manifest.json").exists()


UV = f"""#!/bin/sh
case $1 in
    --version) echo uv 9.9.9 ;;
    venv) for folder; do :; done; exec '{sys.executable}' -m venv --without-pip "$folder" ;;
esac
"""


@pytest.mark.parametrize("error", [None, errno.ENOSYS], ids=["flock", "ENOSYS"])
def test_set_up_goes_on_without_flock(
    error: int | None, without_flock: Run, tmp_path: Path
) -> None:
    checkout = tmp_path / "a checkout"
    (checkout / "tools").mkdir(parents=True)
    for name in ("tools/setup.sh", "requirements-cpu.txt", "setup.py"):
        shutil.copy(ROOT / name, checkout / name)
    uv = tmp_path / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text(UV)
    uv.chmod(0o755)
    preload = () if error else ("-u", "LD_PRELOAD")
    words = ("env", *preload, f"PATH={uv.parent}:{os.environ['PATH']}", "tools/setup.sh")
    done = without_flock(error or 0, *words, cwd=checkout)
    assert done.returncode == 0, done.stderr
    assert ("this file system has no flock: run one set-up at a time" in done.stdout) == bool(error)
    assert (checkout / ".venv" / ".ready").exists()
