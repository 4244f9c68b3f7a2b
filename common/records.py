"""The records that cross a stage boundary, and nothing else.

Files hold them as JSONL or parquet, one record a line or row, under the field names below.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"
END_OF_TURN = "<|im_end|>"
END_OF_TEXT = "<|endoftext|>"

Key = tuple[str, str, int]
"""(set, problem id, k): names one rollout of one problem."""


@dataclass(frozen=True)
class Row:
    """One supervised example: a problem and one chosen trace that solves it."""

    id: str
    source: str
    uuid: str
    trace: int
    """Index of the chosen trace in the source record."""
    problem: str
    solution: str
    """The trace with exactly one think block, then the visible answer."""
    answer: str


ROW = tuple(field.name for field in fields(Row))


@dataclass(frozen=True)
class Tokens:
    """A row as the model sees it. Loss is on ``input_ids[prompt_len:]``."""

    id: str
    input_ids: np.ndarray
    """int32, shape (length,)."""
    prompt_len: int
    length: int


@dataclass(frozen=True)
class Problem:
    """One benchmark problem with its gold answer."""

    id: str
    problem: str
    answer: str
    set: str


@dataclass(frozen=True)
class Rollout:
    """One generated answer. ``text`` is everything after the prompt, special tokens dropped."""

    key: Key
    seed: int
    text: str
    tokens: int
    finish_reason: str
    """``stop`` (the model ended its turn) or ``length`` (the budget ended it)."""
    engine: str
    seconds: float


@dataclass(frozen=True)
class Grade:
    """The judgement of one rollout.

    ``state`` is one of ``boxed``, ``no_box``, ``unclosed_box``, ``box_in_think_only``, ``truncated``; in the answer
    style ``answer_is`` of ``stated``, ``last_number``, ``no_number``, ``truncated``. ``exact`` is the headline,
    ``verified`` math-verify's opinion (true, false or ``UNJUDGED``).
    """

    key: Key
    state: str
    extracted: str | None
    exact: bool
    verified: bool | str


ANSWERED = ("boxed", "stated", "last_number")
"""States of a rollout that gave an answer."""
UNJUDGED = "timeout"
"""``verified`` of every judgement that was not reached: out of time, out of memory, a crash, or too long a gold."""


def graders_differ(exact: bool, verified: bool | str) -> bool:
    """Whether math-verify reached the opposite of exact match; where it did not judge, it disagrees with nobody."""
    return verified not in (exact, UNJUDGED)


def row_id(source: str, uuid: str, trace: int) -> str:
    """A stable name for (source, uuid, trace): the first 16 hex digits of a SHA-256."""
    return hashlib.sha256("\0".join((source, uuid, str(trace))).encode()).hexdigest()[:16]
