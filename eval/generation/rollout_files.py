"""The evaluation folder's JSONL files: rollouts, appended one by one as they finish, and grades."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from common.errors import UserError
from common.files import heal_jsonl, read_jsonl, write_text
from common.records import Grade, Key, Rollout

ROLLOUTS = "rollouts.jsonl"
GRADES = "grades.jsonl"


def read(path: Path, growing: bool = False) -> dict[Key, Rollout]:
    """Rollouts by key, in file order; none when the file does not exist.

    A last line torn by a killed writer is cut off the file; of a file that may be ``growing`` in another's hands
    it is only passed over. Raises UserError naming the file when a line is not a rollout or a key occurs twice.
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
    """Adds one line to an open ledger and flushes it, so that a killed driver loses nothing finished."""
    file.write(json.dumps(asdict(rollout)) + "\n")
    file.flush()


def read_grades(path: Path) -> dict[Key, Grade]:
    """Grades by key. Raises UserError naming the file when a line is not a grade."""
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
            raise UserError(f"{path}: not a {kind.__name__.lower()} ({e}): {str(value)[:200]}") from e
        yield record
