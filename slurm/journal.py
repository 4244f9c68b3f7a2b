"""What a run's jobs note in it: JSONL that only grows, a line a decision, flushed to the disk."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from data_prep.files import heal_jsonl, read_jsonl


def read(path: Path) -> list[dict[str, Any]]:
    """The lines, oldest first; none where there is no file. Raises ValueError for a line that is not JSON."""
    return list(read_jsonl(path)) if path.exists() else []


def append(path: Path, line: dict[str, Any]) -> None:
    """Adds a line, with the time before its other fields."""
    path.parent.mkdir(parents=True, exist_ok=True)
    heal_jsonl(path)
    with path.open("a", encoding="utf-8") as f:
        f.write(json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **line}) + "\n")
        f.flush()
        os.fsync(f.fileno())
