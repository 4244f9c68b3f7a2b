"""A copy of the environment on each node's own disk."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from common.errors import UserError
from slurm.commands.command_lines import Allocation, Job
from slurm.commands.stack import Stack
from tests.conftest import ROOT
from tests.slurm.commands.conftest import HERE, choose
from tests.slurm.conftest import Site


@pytest.fixture
def environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small environment, as this process's own."""
    path = folder / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", path], check=True)
    (module,) = path.glob("lib/python3*/site-packages")
    (module / "small.py").write_text("import sys\nprint(__file__, sys.prefix)\n")
    monkeypatch.setattr("sys.prefix", str(path))
    return path


def archive(environment: Path) -> Path:
    words = [ROOT / "tools" / "env_archive.sh", environment]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (found,) = environment.parent.glob("env-*.tar*")
    assert f"env-archive: {found}, " in done.stdout
    return found


def unpack(words: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs the task of a copy's srun command."""
    task = ["bash", ROOT / "slurm" / "local_env.sh", *words[-2:]]
    return subprocess.run(task, capture_output=True, text=True)


def local(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Stack:
    monkeypatch.setenv("LOCAL_ENV", str(folder / "disk"))
    return Stack.of(Job(HERE), None)


def test_a_copy_of_the_environment_runs_by_itself(
    folder: Path, environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose("SRUN_OPTIONS=(--mpi=none)")
    with pytest.raises(UserError, match=f"LOCAL_ENV needs .*: make env-archive VENV={environment}"):
        local(folder, monkeypatch)
    made = archive(environment)
    stack = local(folder, monkeypatch)
    copy = Path(stack.python[0]).parent.parent
    assert copy.parent == folder / "disk" and copy.name.endswith(made.stem.partition("-")[2])
    words = stack.copy()
    assert words[-4:] == ["bash", "slurm/local_env.sh", str(made), str(copy)]
    assert {"--nodes=16", "--ntasks-per-node=1", "--ntasks=16", "--mpi=none"} <= set(words)
    assert "--wait=1200" in words and "--wait=60" not in words
    done = unpack(words)
    assert (done.returncode, done.stderr) == (0, "")
    shutil.rmtree(environment)
    done = subprocess.run(stack.alone("-m", "small"), capture_output=True, text=True)
    module, prefix = done.stdout.split()
    assert prefix == str(copy) and Path(module).is_relative_to(copy), done.stderr
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]


def test_an_archive_older_than_its_environment_is_refused(
    folder: Path, environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (environment / ".ready").touch()
    made = archive(environment)
    local(folder, monkeypatch)
    later = made.stat().st_mtime + 5
    os.utime(environment / ".ready", (later, later))
    with pytest.raises(UserError, match=f"is older than {environment}: make env-archive"):
        local(folder, monkeypatch)
    # The next one takes its place: another hash, another copy on the nodes.
    (environment / "more").touch()
    assert archive(environment) != made


def test_a_copy_is_made_once_whoever_comes_first(
    folder: Path, environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive(environment)
    words = local(folder, monkeypatch).copy()
    with ThreadPoolExecutor() as pool:
        assert [done.returncode for done in pool.map(unpack, [words] * 6)] == [0] * 6
    copy = Path(words[-1])
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]
    Path(words[-2]).unlink()  # it is not read again
    assert unpack(words).returncode == 0


def test_a_copy_that_lost_files_is_made_anew(
    folder: Path, environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive(environment)
    words = local(folder, monkeypatch).copy()
    copy = Path(words[-1])
    assert unpack(words).returncode == 0
    (module,) = copy.glob("lib/python3*/site-packages/small.py")
    (module.parent / "__pycache__" / "new.pyc.17").touch()  # Python writes there
    before = copy.stat().st_ino
    assert unpack(words).returncode == 0 and copy.stat().st_ino == before
    module.unlink()
    assert unpack(words).returncode == 0
    assert module.exists() and [path.name for path in copy.parent.iterdir()] == [copy.name]


def foreign(copy: Path) -> str:
    copy.mkdir()
    if os.getuid():
        pytest.skip("only root can give a folder away")
    os.chown(copy, 65534, 65534)
    return f"{copy} is not yours"


def link(copy: Path) -> str:
    copy.symlink_to(copy.parent.parent)
    return f"{copy} is not yours"


def full(copy: Path) -> str:
    copy.parent.rmdir()
    copy.parent.write_text("")
    return f"{copy.parent} cannot be made"


@pytest.mark.parametrize("prepare", [foreign, link, full])
def test_a_node_that_cannot_have_the_copy_says_why(
    prepare: Callable[[Path], str],
    folder: Path,
    environment: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    archive(environment)
    words = local(folder, monkeypatch).copy()
    copy = Path(words[-1])
    copy.parent.mkdir()
    said = prepare(copy)
    monkeypatch.setenv("SLURMD_NODENAME", "n7")
    done = unpack(words)
    assert done.returncode == 3 and f"warmstart: n7: {said}" in done.stderr


def test_a_broken_archive_leaves_nothing(
    folder: Path, environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = archive(environment)
    whole, words = made.read_bytes(), local(folder, monkeypatch).copy()
    other = whole.replace(b"import sys\nprint", b"import SYS\nprint")
    for content, said in ((other, "is damaged"), (whole[:5000], "is damaged"), (b"x", "unpacked")):
        made.write_bytes(content)
        done = unpack(words)
        assert done.returncode == 3 and said in done.stderr
        assert list((folder / "disk").iterdir()) == []


def test_a_container_has_no_environment_to_copy(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose("CONTAINER=(apptainer exec x.sif)")
    with pytest.raises(UserError, match="remove one of the two"):
        local(folder, monkeypatch)


def test_many_nodes_are_told_to_copy(
    folder: Path, environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def advised(stack: Stack) -> bool:
        return any("make env-archive" in finding.fix for finding in stack.advice())

    assert advised(Stack.of(Job(HERE), None))
    assert not advised(Stack.of(Job(Allocation(8, 4, 8)), None))
    archive(environment)
    assert not advised(local(folder, monkeypatch))
    monkeypatch.delenv("LOCAL_ENV")
    choose("CONTAINER=(apptainer exec x.sif)")
    assert not advised(Stack.of(Job(HERE), None))


MARK = """
import os, sys
if "SLURM_STEP_ID" in os.environ:
    with open({log!r}, "a") as f:
        f.write(f"{{os.environ['SLURMD_NODENAME']}} {{sys.prefix}}\\n")
"""


def test_the_nodes_of_a_job_run_from_their_copies(
    site: Site, environment: Path, folder: Path
) -> None:
    """The copy of an environment that has this one's packages; its preflight finds no dataset."""
    (packages,) = environment.glob("lib/python3*/site-packages")
    (real,) = Path(sys.executable).parent.parent.glob("lib/python3*/site-packages")
    (packages / "real.pth").write_text(f"{real}\n")
    (packages / "sitecustomize.py").write_text(MARK.format(log=str(folder / "log")))
    made = archive(environment)
    checkout = folder / "copied"
    shutil.copytree(site.folder, checkout, ignore=shutil.ignore_patterns("runs", "data"))
    choices = f"VENV={shlex.quote(str(environment))}\nLOCAL_ENV={shlex.quote(str(folder / 'disk'))}"
    with (checkout / "slurm" / "site.env").open("a") as f:
        f.write(f"{choices}\n")
    copied = Site(site.cluster, checkout)
    job = copied.train("run.name=copied")
    ended = site.cluster.wait(job)
    assert (ended["JobState"], ended["ExitCode"]) == ("FAILED", "3:0"), copied.log(job)
    assert "data/tiny is not built [n1, n2]" in copied.log(job)
    copy = next((folder / "disk").iterdir())
    assert copy.name.endswith(made.stem.partition("-")[2])
    lines = set((folder / "log").read_text().splitlines())
    assert lines == {f"n1 {copy}", f"n2 {copy}"}
