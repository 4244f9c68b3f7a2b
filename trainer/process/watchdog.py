"""Ends a hung rank: after a time without progress it writes every thread's stack and exits with
code 1.

The timer is faulthandler's C thread, which needs no Python to run: it also fires when a collective
never returns or the GIL is held.
"""

from __future__ import annotations

import faulthandler
from pathlib import Path

SET_UP_MINUTES = 30
"""Minimum allowance from joining the process group until the first step is launched: loading,
compiling.
"""


class Watchdog:
    """Active from construction until ``close``. Call ``alive`` on progress."""

    def __init__(self, minutes: float, path: Path) -> None:
        """``minutes`` is the allowance after the first step, for a step, a validation micro-batch
        or a save; ``path`` is the file for the stacks.
        """
        self.minutes, self.allowance = minutes, max(minutes, SET_UP_MINUTES)
        self.path, self.file = path, path.open("w", encoding="utf-8")
        self.alive()

    def alive(self) -> None:
        """Restarts the timer."""
        faulthandler.dump_traceback_later(60 * self.allowance, exit=True, file=self.file)

    def stepped(self) -> None:
        """Restarts the timer after a training step, with the allowance for steps."""
        self.allowance = self.minutes
        self.alive()

    def close(self) -> None:
        """Stops the timer and deletes the file for stacks."""
        faulthandler.cancel_dump_traceback_later()
        self.file.close()
        self.path.unlink()
