"""Runs the recipe's command for an alarm (``train.on_alarm``), while training goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from threading import Thread

VARIABLE = "WARMSTART_ALARM"
"""The alarm as one line; with ``_`` and a name, one part of it."""
LIMIT_SECONDS = 600.0
"""Time after which a command is killed."""
GRACE_SECONDS = 20.0
"""How long the end of training waits for commands that still run: a job's end would kill them."""


class Command:
    """A command of the shell that is given each alarm by variables, so no text of an alarm becomes
    part of it. Its words and its output, which may hold a secret, are not logged.
    """

    def __init__(self, command: str | None) -> None:
        self.command = command
        self._waiting: list[Thread] = []

    def start(self, line: str, parts: Mapping[str, str]) -> None:
        """Starts it for the alarm of this line and returns at once; prints how it failed."""
        if self.command is None:
            return
        variables = {VARIABLE: line} | {f"{VARIABLE}_{name}": text for name, text in parts.items()}
        plain = {name: text.replace("\0", " ") for name, text in variables.items()}
        try:
            process = subprocess.Popen(
                ["/bin/sh", "-c", self.command],
                env=os.environ | plain,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as e:
            _tell(f"did not start: {e.strerror}")
            return
        thread = Thread(target=_wait, args=(process,), daemon=True)
        thread.start()
        self._waiting.append(thread)

    def close(self) -> None:
        """Waits a little for the commands that still run."""
        end = time.monotonic() + GRACE_SECONDS
        for thread in self._waiting:
            thread.join(max(0.0, end - time.monotonic()))


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        code = process.wait(LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        _tell(f"was killed after {LIMIT_SECONDS:.0f} s")
        return
    if code:
        _tell(f"failed with exit code {code}")


def _tell(what: str) -> None:
    print(f"warmstart: the command of train.on_alarm {what}; training goes on", flush=True)
