"""Stop on request: a signal sets a flag, and all ranks agree to stop after the current step."""

from __future__ import annotations

import os
import signal
from types import FrameType

from common.exit_codes import STOPPED

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """Set by any of ``SIGNALS``. Before ``arm``, a signal ends the process immediately, because
    there is nothing to save.
    """

    def __init__(self) -> None:
        self.asked = False
        self._armed = False
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    def arm(self) -> None:
        """Makes signals from now on only set ``asked``."""
        self._armed = True

    def close(self) -> None:
        """Ignores signals from now on. Python restores the default handlers, which kill, when it
        exits; a signal from srun to the other ranks of a crashed one would then make their own
        crash look like a stop.
        """
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if not self._armed:
            os._exit(STOPPED)
