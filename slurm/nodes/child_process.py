"""Runs child commands one at a time and forwards stop requests."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import IO

from common.exit_codes import FAILED, STOPPED
from common.processes import die_with_parent
from trainer.process.stop_signal import SIGNALS

LINGER_SECONDS, POLL_SECONDS = 90, 2
"""Seconds that srun may wait for a task whose node has lost its daemon; seconds between two checks.
"""


class Stoppable:
    """Runs commands. On the first stop request, asks the running command to stop; starts none after
    that.
    """

    def __init__(self) -> None:
        self.asked, self.terminated = False, False
        self._child: subprocess.Popen[bytes] | None = None
        for number in SIGNALS:
            signal.signal(number, self._ask)

    def run(
        self,
        words: Sequence[str],
        environment: Mapping[str, str] | None = None,
        over: Callable[[], bool] | None = None,
        log: IO[str] | None = None,
        seconds: float = math.inf,
    ) -> int:
        """Returns the command's exit code, as a shell reports it; after a stop request, returns 75
        without running it.

        If the request comes while it runs, death by a signal also gives 75, and so does exit code 1
        unless SIGTERM was received: srun sends SIGTERM to the other tasks when one crashes, so a
        failure then is part of that crash. A command that runs on for LINGER_SECONDS after its work
        is ``over``, or for longer than ``seconds``, is ended. ``log`` receives its output.
        """
        if self.asked:
            return STOPPED
        variables = {**os.environ, **(environment or {})}
        both = None if log is None else subprocess.STDOUT
        self._child = child = subprocess.Popen(
            words, env=variables, stdout=log, stderr=both, preexec_fn=die_with_parent
        )
        if self.asked:  # the request came before there was a child to forward it to
            child.send_signal(signal.SIGUSR1)
        if over is None and seconds == math.inf:
            code = child.wait()  # does not wake up beside a rank that trains
        else:
            code = _wait(child, over or (lambda: False), time.monotonic() + seconds)
        self._child = None
        code = code if code >= 0 else 128 - code
        if self.asked and (code > 128 or (code == FAILED and not self.terminated)):
            return STOPPED
        return code

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked, self.terminated = True, self.terminated or number == signal.SIGTERM
        if self._child is not None:
            self._child.send_signal(signal.SIGUSR1)  # not SIGTERM, on which srun kills its tasks


def _wait(child: subprocess.Popen[bytes], over: Callable[[], bool], end: float) -> int:
    left = LINGER_SECONDS
    while True:
        try:
            return child.wait(POLL_SECONDS)
        except subprocess.TimeoutExpired:
            left -= POLL_SECONDS if over() else 0
            if left <= 0 or time.monotonic() > end:
                child.terminate()
