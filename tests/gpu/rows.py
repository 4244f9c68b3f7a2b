"""Writes and reads the rows of a check: one JSON line per figure, on disk as soon as it is known.

A file begins with a line that says where and when the check ran and ends, if the check did, with a
line of counts.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
RUN, CLOSING = "run", "closing"


@dataclass(frozen=True)
class Row:
    """One figure of a case, beside a peer's, or why there is none."""

    case: str
    metric: str
    unit: str = ""
    ours: float | None = None
    peer: float | None = None
    peer_name: str | None = None
    ratio: float | None = None
    """Ours over the peer's."""
    limit: float | None = None
    """The most that ours may be."""
    status: str = PASSED
    note: str = ""


def figure(
    case: str,
    metric: str,
    unit: str,
    ours: float,
    *,
    peer: float | None = None,
    peer_name: str | None = None,
    limit: float | None = None,
    note: str = "",
) -> Row:
    """A measured figure. It fails when it is not finite, or above ``limit``."""
    if not math.isfinite(ours):
        note = f"{ours} {note}".rstrip()
        return Row(case, metric, unit, None, peer, peer_name, None, limit, FAILED, note)
    status = FAILED if limit is not None and ours > limit else PASSED
    ratio = ours / peer if peer else None
    return Row(case, metric, unit, ours, peer, peer_name, ratio, limit, status, note)


def append(path: Path, line: dict[str, Any]) -> None:
    """Adds one line in one write and flushes it to the disk, so that a killed process leaves no
    half of one.
    """
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, (json.dumps(line, allow_nan=False) + "\n").encode())
        os.fsync(file)
    finally:
        os.close(file)


def put(path: Path, row: Row) -> None:
    """Adds a row."""
    append(path, asdict(row))


@dataclass(frozen=True)
class Sheet:
    """The contents of a file."""

    run: dict[str, Any]
    rows: list[Row]
    closing: dict[str, Any] | None
    """None where the check was ended before its time."""

    def counts(self) -> dict[str, int]:
        """Status -> rows."""
        return {
            status: sum(row.status == status for row in self.rows)
            for status in (PASSED, FAILED, SKIPPED)
        }


def read(path: Path) -> Sheet:
    """Reads a file. Raises ValueError naming the line that is not a check's."""
    run, closing, rows = None, None, []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            line = json.loads(text)
            if RUN in line:
                run = line[RUN]
            elif CLOSING in line:
                closing = line[CLOSING]
            else:
                rows.append(Row(**line))
        except (TypeError, ValueError) as e:
            raise ValueError(f"{path} line {number} is no row of a check: {e}") from e
    if run is None:
        raise ValueError(
            f"{path} does not say where it was measured: it is no file of tests.gpu.check"
        )
    return Sheet(run, rows, closing)
