"""Runs the recipe's command for an alarm (``train.on_alarm``), while training goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from threading import Thread

VARIABLE = "WARMSTART_ALARM"
"""Variable with the alarm as one line; with ``_`` and a name appended, one part of it."""
LIMIT_SECONDS = 600.0
"""Seconds after which a command is killed."""
GRACE_SECONDS = 20.0
"""Seconds that training waits at its end for commands that are still running, because the job's end
would kill them.
"""


class Command:
    """A shell command that receives each alarm in environment variables, so that no text of an
    alarm becomes part of the command. Neither the command nor its output is logged, because they
    may hold a secret.
    """

    def __init__(self, command: str | None) -> None:
        self.command = command
        self._waiting: list[Thread] = []

    def start(self, line: str, parts: Mapping[str, str]) -> None:
        """Starts the command for the alarm with this line and returns immediately; prints a failure
        later.
        """
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
        """Waits briefly for commands that are still running."""
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
    print(f"warmstart: the command of train.on_alarm {what}; training continues", flush=True)
