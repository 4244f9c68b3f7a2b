"""The ledgers of the job scripts: JSON lines that several processes append to, also on NFS.

A line may be damaged: two hosts wrote at the same offset, or a process ended while it wrote. Such a
line is reported and skipped, because a ledger is only a record of decisions; no work may fail
because of it.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.files import intact_lines

Fields = Mapping[str, type | re.Pattern[str]]
DECISION: Fields = {
    "job": str,
    "what": str,
    "count": int,
    "attempt": int,
    "ended": str,
    "progress": int,
    "requeued": bool,
    "reason": str,
}
SUBMISSION: Fields = {"job": str, "label": re.compile(r"base|(step_)?[0-9]+")}
INCIDENT: Fields = {"job": str, "start": int, "node": str, "what": str, "cause": str}
"""The fields that readers of the three ledgers need, with their type or pattern."""
_told: set[tuple[Path, int]] = set()


def read(path: Path, fields: Fields) -> list[dict[str, Any]]:
    """Returns the lines that have these fields; empty without a file. Prints the number of each
    other line to stderr, once per process; an unfinished last line is still being written and is
    ignored.
    """
    if not path.exists():
        return []
    lines, faults = intact_lines(path)
    for number, line in lines.items():
        if missing := [name for name in fields if not _fits(line.get(name), fields[name])]:
            faults[number] = f"its {missing[0]} is missing or wrong"
    for number, fault in faults.items():
        if (path, number) not in _told:
            _told.add((path, number))
            text = f"warmstart: {path}, line {number} is damaged and is skipped: {fault}"
            print(text, file=sys.stderr, flush=True)
    return [line for number, line in lines.items() if number not in faults]


def append(path: Path, line: Mapping[str, Any]) -> None:
    """Appends a line in one write, with the current time as its first field, and fsyncs it. If the
    last line is unfinished (another process may still be writing it), a newline is added first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    now = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    text = json.dumps(now | dict(line) | now) + "\n"
    with path.open("ab+", buffering=0) as f:
        if f.seek(0, os.SEEK_END):
            f.seek(-1, os.SEEK_END)
            text = text if f.read(1) == b"\n" else "\n" + text
        f.write(text.encode())
        os.fsync(f.fileno())


def _fits(value: Any, kind: type | re.Pattern[str]) -> bool:
    if isinstance(kind, type):
        return isinstance(value, kind)
    return isinstance(value, str) and kind.fullmatch(value) is not None
