"""Ends a rank that hangs: after a time without a sign of life every thread's stack is written, then exit code 1.

The clock is a C thread of faulthandler's, which needs no Python to run: it also fires in a collective that
never returns, and with the interpreter's lock held.
"""

from __future__ import annotations

import faulthandler
from pathlib import Path

SET_UP_MINUTES = 30
"""How long a rank may take, at the least, from joining the others to the end of its first step: loading, compiling."""


def stacks(attempt: Path, rank: int) -> Path:
    """Where a rank that hung leaves its threads' stacks; each has its own file, since all ranks write at once."""
    return attempt / f"stacks-rank{rank}.txt"


class Watchdog:
    """Armed from its making to ``close``; whoever makes progress says so."""

    def __init__(self, minutes: float, path: Path) -> None:
        """``minutes`` is what any wait may take after the first step: a step, a validation micro-batch, a save."""
        self.minutes, self.allowance = minutes, max(minutes, SET_UP_MINUTES)
        self.path, self.file = path, path.open("w", encoding="utf-8")
        self.alive()

    def alive(self) -> None:
        """A sign of life."""
        faulthandler.dump_traceback_later(60 * self.allowance, exit=True, file=self.file)

    def stepped(self) -> None:
        """A sign of life after a training step; set-up is over."""
        self.allowance = self.minutes
        self.alive()

    def close(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        self.file.close()
        self.path.unlink()
