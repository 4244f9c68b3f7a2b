"""One command at a time for as long as it takes, with requests to stop passed on; and what a job's first task says."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from common.exit_codes import FAILED, STOPPED
from common.files import write_text
from trainer.process.stop_signal import SIGNALS

LIBC = ctypes.CDLL(None)


class Stoppable:
    """Runs commands. From the first request to stop on, the one that runs is asked to stop and none begins."""

    def __init__(self) -> None:
        self.asked, self._terminated = False, False
        self._child: subprocess.Popen[bytes] | None = None
        for number in SIGNALS:
            signal.signal(number, self._ask)

    def run(self, words: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
        """The command's exit code, as a shell gives it; 75 where it was asked to stop, unless it is done or refused.

        SIGTERM is also how srun ends the tasks that a crashed one has left: one that fails then has crashed with it.
        """
        if self.asked:
            return STOPPED
        variables = {**os.environ, **(environment or {})}
        self._child = child = subprocess.Popen(words, env=variables, preexec_fn=bind_to_parent)
        if self.asked:  # before there was a child to ask
            child.send_signal(signal.SIGUSR1)
        code = child.wait()
        self._child = None
        code = code if code >= 0 else 128 - code
        if self.asked and (code > 128 or (code == FAILED and not self._terminated)):
            return STOPPED
        return code

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked, self._terminated = True, self._terminated or number == signal.SIGTERM
        if self._child is not None:
            self._child.send_signal(signal.SIGUSR1)  # srun answers TERM by killing its tasks


def bind_to_parent() -> None:
    """Has Linux kill this process when the one that started it ends (prctl PR_SET_PDEATHSIG)."""
    LIBC.prctl(1, signal.SIGKILL)


def is_first() -> bool:
    """True in the task that answers for its step."""
    return os.environ["SLURM_PROCID"] == "0"


def code_file(run: Path, job: str) -> Path:
    """Where the first task of a job leaves its exit code.

    srun's own is the largest of all tasks', those included that it ended after the first failure, and so says nothing
    about why the work ended.
    """
    return run / f".exit-{job}"


def leave_code(run: Path, code: int) -> None:
    """Called by the first task when its work has ended."""
    write_text(code_file(run, os.environ["SLURM_JOB_ID"]), f"{code}\n")


def take_code(run: Path, job: str) -> int | None:
    """What the first task left, once; None where it came to nothing."""
    path = code_file(run, job)
    code = int(path.read_text()) if path.exists() else None
    path.unlink(missing_ok=True)
    return code
