"""Stopping on purpose: a signal asks, all ranks agree at the next step border."""

from __future__ import annotations

import os
import signal
from types import FrameType

from common.exit_codes import STOPPED

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """Set by any of ``SIGNALS``. Until ``arm`` is called there is nothing to save, and the process leaves at once."""

    def __init__(self) -> None:
        self.asked = False
        self._armed = False
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    def arm(self) -> None:
        """From here on a signal only sets ``asked``."""
        self._armed = True

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if not self._armed:
            os._exit(STOPPED)
