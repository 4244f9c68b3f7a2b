"""The JSONL files of an evaluation's folder: rollouts, appended one by one as they finish, and
grades.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from common.errors import UserError
from common.files import heal_jsonl, read_jsonl, write_text
from common.records import ROLLOUTS as ROLLOUTS
from common.records import Grade, Key, Rollout

GRADES = "grades.jsonl"


def read(path: Path, growing: bool = False) -> dict[Key, Rollout]:
    """Returns the rollouts by key, in file order; an empty dict when the file does not exist.

    Cuts off an incomplete last line, which a killed writer left. With ``growing``, another process
    may be writing the file, and the incomplete line is only skipped. Raises UserError naming the
    file when a line is not a rollout or a key occurs twice.
    """
    if not growing:
        heal_jsonl(path)
    rollouts: dict[Key, Rollout] = {}
    for rollout in _records(path, Rollout, growing):
        if rollout.key in rollouts:
            raise UserError(f"{path}: rollout {rollout.key} occurs twice; remove one of its lines")
        rollouts[rollout.key] = rollout
    return rollouts


def append(file: TextIO, rollout: Rollout) -> None:
    """Appends one line to an open rollout file and flushes it, so that a killed driver loses no
    finished rollout. Fields without a value are left out.
    """
    values = {name: value for name, value in asdict(rollout).items() if value is not None}
    file.write(json.dumps(values) + "\n")
    file.flush()


def read_grades(path: Path) -> dict[Key, Grade]:
    """Returns the grades by key; an empty dict when there is no file.

    Raises UserError naming the file when a line is not a grade.
    """
    return {grade.key: grade for grade in _records(path, Grade)}


def write_grades(path: Path, grades: Iterable[Grade]) -> None:
    """Writes all grades at once, atomically."""
    write_text(path, "".join(json.dumps(asdict(grade)) + "\n" for grade in grades))


def _records(path: Path, kind: type, growing: bool = False) -> Iterable[Any]:
    if not path.exists():
        return
    for value in read_jsonl(path, growing):
        try:
            name, problem, k = value.pop("key")
            record = kind(key=(name, problem, k), **value)
        except (KeyError, TypeError, ValueError) as e:
            raise UserError(
                f"{path}: not a {kind.__name__.lower()} ({e}): {str(value)[:200]}"
            ) from e
        yield record
