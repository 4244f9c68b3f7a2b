"""The doctor's findings on tiny's dataset, in a folder of its own."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from warmstart.cli import main

SMALL = ["data.arithmetic.problems=100", "data.spare_share=0"]
Look = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny's dataset, small."""
    folder = tmp_path_factory.mktemp("doctor")
    assert main(["data", "tiny", *SMALL, f"data.dir={folder / 'data'}"]) == 0
    return folder


@pytest.fixture
def folder(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of ``built`` as the current folder, outside any job."""
    shutil.copytree(built / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    program(tmp_path, "sbatch", 'echo "sbatch: Job 1 to start" >&2')
    return tmp_path


@pytest.fixture
def look(folder: Path, capsys: pytest.CaptureFixture[str]) -> Look:
    """Calls the doctor and checks its exit code; returns its findings by what they are about."""

    def call(recipe: str, *words: str) -> dict[str, Any]:
        code = main(["doctor", recipe, *words, "--json"])
        findings = json.loads(capsys.readouterr().out)
        fatal = [f["what"] for f in findings if f["level"] == "fatal"]
        assert code == (3 if fatal else 0)
        return {f["what"]: f for f in findings}

    return call


def program(folder: Path, name: str, text: str) -> None:
    """A program on PATH."""
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
