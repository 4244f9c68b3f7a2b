"""The job scripts in a checkout beside a stand-in for sbatch, and a checkout that has only a site
file.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from slurm.commands.command_lines import Allocation
from slurm.commands.environment import CACHES
from tests.conftest import ROOT

SFT = "slurm/sft_4b.sh"
DATA = "slurm/data.sh"
HERE = Allocation(16, 4, 8)


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts in a folder with a space, beside this checkout's packages."""
    folder = tmp_path_factory.mktemp("scripts") / "a checkout"
    shutil.copytree(
        ROOT / "slurm", folder / "slurm", ignore=shutil.ignore_patterns("site.env", "__pycache__")
    )
    for name in ("common", "data_prep", "trainer", "eval", "recipes", "warmstart"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def call(checkout: Path, site: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs a script outside any job, beside an sbatch that only notes in ``calls`` that it ran."""
    (checkout / "slurm" / "site.env").write_text(f"VENV={sys.prefix}\n{site}")
    (checkout / "calls").unlink(missing_ok=True)
    fake = checkout / "bin" / "sbatch"
    fake.parent.mkdir(exist_ok=True)
    fake.write_text(
        f"#!/bin/sh\nprintf '%s\\n' \"$@\" >'{checkout}/calls'\nenv >'{checkout}/variables'"
    )
    fake.chmod(0o755)
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))}
    variables["PATH"] = f"{fake.parent}:{variables['PATH']}"
    return subprocess.run(words, cwd=checkout, env=variables, capture_output=True, text=True)


def submitted(checkout: Path) -> list[str] | None:
    """What sbatch was called with; None if it was not."""
    path = checkout / "calls"
    return path.read_text().splitlines() if path.exists() else None


def dry_run(checkout: Path, site: str, *words: str) -> tuple[list[str], str]:
    """The command lines and the facts that a script's dry run prints."""
    done = call(checkout, site, *words)
    assert done.returncode == 0, done.stderr
    assert submitted(checkout) is None
    lines = done.stdout.splitlines()
    return [x for x in lines if not x.startswith("#")], "\n".join(
        x for x in lines if x.startswith("#")
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout that has only a site file, with everything else beside it."""
    checkout = tmp_path / "a checkout"
    (checkout / "slurm").mkdir(parents=True)
    monkeypatch.chdir(checkout)
    for name in ("LOCAL_ENV", "APPTAINER_BIND", "SINGULARITY_BIND", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("home", "temp"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temp"))
    for name in CACHES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    return tmp_path


def choose(text: str) -> None:
    Path("slurm/site.env").write_text(text)
