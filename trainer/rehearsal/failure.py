"""The line in a rehearsal's log that says which rank failed and why.

Ranks that lose a peer fail too, but later: the first such line of a log has the cause. Lines arrive
there through srun, so that no node's clock counts.
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
    """``rank R on NODE``; None where no rank said anything."""
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
        """The failure inside a sentence."""
        return f"{self.place}: {self.error}" if self.place else self.error


def one_line(error: BaseException) -> str:
    """Returns an error's type and the first line of its message, with the next one where that only
    announces it (``backend='inductor' raised:``); of an error for a person only the message.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    count = 2 if lines and lines[0].endswith(":") else 1
    message = " ".join(lines[:count])
    if isinstance(error, UserError | StageFailed):
        return message
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
