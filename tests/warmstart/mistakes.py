"""Runs the command in process, in a folder of its own, and holds that a mistake started nothing."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from common import progress
from warmstart.cli import main

LIGHT = ("bash", "nvidia-smi", "git")
"""Programs that a check may ask: for the site's file, the GPUs and the commit."""


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@dataclass
class Careless:
    """A user in an empty folder, on a machine whose network and processes are watched."""

    folder: Path
    capsys: pytest.CaptureFixture[str]
    started: list[str] = field(default_factory=list)

    def told(self, *words: str) -> list[str]:
        """Returns the lines that the command tells on stderr when it exits with 2, having started
        nothing and left nothing.
        """
        before = tree(self.folder)
        self.capsys.readouterr()
        code = main(list(words))
        out, said = self.capsys.readouterr()
        assert code == 2, (code, out, said)
        assert "Traceback" not in said and "usage:" not in said, said
        assert out == "", out
        assert self.started == []
        assert tree(self.folder) == before
        assert said.startswith("warmstart: "), said
        return said.removeprefix("warmstart: ").splitlines()

    def only(self, *words: str) -> str:
        """Returns the one line that the command tells."""
        lines = self.told(*words)
        assert len(lines) == 1, lines
        return lines[0]


def watch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> Careless:
    """Makes ``folder`` the working directory, and notes what connects and what is started."""
    user = Careless(folder, capsys)
    monkeypatch.chdir(folder)
    for name in ("RAY_ADDRESS", "CUDA_VISIBLE_DEVICES", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)

    def noting(name: str, of: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Any, *words: Any, **options: Any) -> Any:
            given = words[0] if words else options.get("args")
            program = given[0] if isinstance(given, list) else str(given)
            if Path(program).name not in LIGHT:
                user.started.append(f"{name} {given}")
            return of(self, *words, **options)

        return call

    # A slow machine is told what is waited for.
    monkeypatch.setattr(progress, "LOG_SECONDS", 600.0)
    monkeypatch.setattr(progress, "LONG_LOG_SECONDS", 600.0)
    monkeypatch.setattr(subprocess.Popen, "__init__", noting("process", subprocess.Popen.__init__))
    monkeypatch.setattr(socket.socket, "connect", noting("connect", socket.socket.connect))
    return user
