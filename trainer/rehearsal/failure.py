"""The line in a rehearsal's log that names the failed rank and the reason.

Ranks that lose a peer fail too, but later, so the first such line of a log has the cause. The lines
arrive through srun, so their order does not depend on the nodes' clocks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from common.errors import StageFailed, UserError

STOPPED_LINE = "warmstart: the rehearsal was asked to stop"
_LINE = re.compile(r"warmstart: (rank \d+ on \S+) failed: (.+)")


@dataclass(frozen=True)
class Failure:
    """Why a rehearsal failed."""

    place: str | None
    """``rank R on NODE``; None if no rank reported a failure."""
    error: str
    """One line."""

    @classmethod
    def of(cls, rank: str, node: str, error: str) -> Failure:
        """Returns the failure of a rank."""
        return cls(f"rank {rank} on {node}", error)

    @classmethod
    def first(cls, log: str) -> Failure | None:
        """Returns the first failure of a log; None if there is none."""
        found = _LINE.search(log)
        return cls(found[1], found[2].strip()) if found else None

    @property
    def line(self) -> str:
        """The line for the log."""
        return f"warmstart: {self.place} failed: {self.error}"

    @property
    def text(self) -> str:
        """The failure as part of a sentence."""
        return f"{self.place}: {self.error}" if self.place else self.error


def one_line(error: BaseException) -> str:
    """Returns an error's type and the first line of its message, plus the next line if the first
    only announces it (``backend='inductor' raised:``); for a UserError or StageFailed only the
    message.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    count = 2 if lines and lines[0].endswith(":") else 1
    message = " ".join(lines[:count])
    if isinstance(error, UserError | StageFailed):
        return message
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
