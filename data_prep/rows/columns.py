"""Reads a record's columns: text, numbers that stand for text, and lists."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from typing import Any

from common.text import plain_number
from data_prep.rows.dropped import Dropped
from data_prep.source.shards import BadRecord, Record

TEXTS, MESSAGES = ("problem", "solution", "answer"), "messages"
"""The usual names of columns."""
_PIECE = re.compile(r"\\boxed\s*\{|\\.|[{}\\]|[^{}\\]+", re.DOTALL)


def value_of(record: Record, name: str, kind: type | tuple[type, ...]) -> Any:
    """Returns a column's value. Raises BadRecord when it is missing or of another type."""
    if name not in record.values:
        raise BadRecord(
            f"{record.where}: no column {name!r}; it has {', '.join(record.values)} "
            f"({_naming(record.values)})"
        )
    value = record.values[name]
    if not isinstance(value, kind):
        wanted = (kind if isinstance(kind, type) else kind[0]).__name__
        raise BadRecord(
            f"{record.where}: column {name!r} must be {wanted}, not {type(value).__name__}"
        )
    return value


def _naming(there: Collection[str]) -> str:
    """Returns how a recipe names the columns of a record that has the columns ``there``."""
    if set(TEXTS) <= set(there):
        return f'set "data.columns={{{", ".join(f"{name}: {name}" for name in TEXTS)}}}"'
    if MESSAGES in there:
        return f'set "data.columns={{{MESSAGES}: {MESSAGES}}}"'
    return "set data.columns"


def text_of(record: Record, name: str) -> str | None:
    """Returns a column's text, None if it is null. A number becomes text; a whole one loses its
    decimals, so 108.0 is "108".

    Raises BadRecord for another type, such as a truth value, and for an infinite number.
    """
    value = record.values.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value_of(record, name, (str, type(None)))
    if math.isnan(value):  # how a table of numbers spells null
        return None
    if math.isinf(value):
        raise BadRecord(f"{record.where}: column {name!r} must be a finite number")
    return plain_number(value)


def answer_of(record: Record, name: str) -> str:
    """Returns the answer in a column as text, out of its boxes. Raises Dropped for a null one."""
    text = text_of(record, name)
    if text is None:
        raise Dropped("no answer")
    return unboxed(text) if "\\boxed" in text else text


def unboxed(text: str) -> str:
    r"""Returns the text with each ``\boxed{..}`` replaced by its content; linear in its length."""
    boxes: list[bool] = []
    kept = []
    for piece in _PIECE.findall(text):
        if piece.startswith("\\boxed"):
            boxes.append(True)
        elif piece == "}" and boxes:
            if not boxes.pop():
                kept.append(piece)
        else:
            if piece == "{":
                boxes.append(False)
            kept.append(piece)
    return "".join(kept).strip()


def aligned(record: Record, name: str, length: int, required: bool = True) -> list[Any]:
    """Returns a list column with one entry per trace; all None if the column is null, or missing
    and not required.
    """
    if name not in record.values and not required:
        return [None] * length
    if name not in record.values:
        raise BadRecord(
            f"{record.where}: no column {name!r} (data.verifier names the correctness column)"
        )
    value = record.values[name]
    if value is None:
        return [None] * length
    if not isinstance(value, list) or len(value) != length:
        raise BadRecord(
            f"{record.where}: column {name!r} must have one entry for each of {length} generations"
        )
    return value
