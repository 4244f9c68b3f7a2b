"""The records that are passed between stages.

Files hold them as JSONL or parquet, one record per line or row, under the field names below.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"
END_OF_TURN = "<|im_end|>"
END_OF_TEXT = "<|endoftext|>"

LONE_SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a surrogate pair, which JSON can write but UTF-8 cannot encode."""

Key = tuple[str, str, int]
"""(set, problem id, k): identifies the k-th rollout of a problem."""


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
    """The trace: exactly one think block, then the visible answer."""
    answer: str
    earlier: str = ""
    """JSON list of the {role, content} messages before ``problem``; empty if there are none."""


ROW = tuple(field.name for field in fields(Row))


def row_of(values: Mapping[str, Any]) -> Row:
    """Returns the row with these values, which come from rows.parquet; older datasets lack
    ``earlier``.
    """
    return Row(**{name: values[name] for name in ROW if name in values})


@dataclass(frozen=True)
class Tokens:
    """A tokenized row. The loss is on ``input_ids[prompt_len:]``."""

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
    earlier: str = ""
    """As a row's."""


@dataclass(frozen=True)
class Rollout:
    """One generated answer. ``text`` is everything after the prompt, without special tokens."""

    key: Key
    seed: int
    text: str
    tokens: int
    finish_reason: str
    """``stop`` (the model ended its turn) or ``length`` (the token budget cut it off)."""
    engine: str
    seconds: float
    mean_logprob: float | None = None
    """Mean log-probability of its tokens, in nats per token, in the distribution that they were
    sampled from: at the temperature, renormalised over what top-p leaves; of a greedy rollout, at
    temperature 1. None if it was not recorded.
    """
    taken_from: str | None = None
    """Folder name of the evaluation that generated it, if another evaluation took it over."""


ROLLOUTS = "rollouts.jsonl"
"""Name of the file of rollouts, one per line."""


@dataclass(frozen=True)
class Grade:
    """The grade of one rollout.

    ``state`` is one of ``boxed``, ``no_box``, ``unclosed_box``, ``box_in_think_only``,
    ``truncated``; in the answer style ``answer_is`` one of ``stated``, ``last_number``,
    ``no_number``, ``truncated``. ``exact`` (exact match) is the headline result; ``verified`` is
    math-verify's verdict (true, false or ``UNJUDGED``).
    """

    key: Key
    state: str
    extracted: str | None
    exact: bool
    verified: bool | str
    grader: int = 1
    """Version of the rules (``data_prep.rules.ANSWERS``); grades that lack it are of version 1."""


ANSWERED = ("boxed", "stated", "last_number")
"""``state`` of rollouts that gave an answer."""
UNJUDGED = "timeout"
"""``verified`` if math-verify reached no verdict: time-out, out of memory, crash, or a gold answer
that is too long.
"""


def graders_differ(exact: bool, verified: bool | str) -> bool:
    """Returns whether math-verify and exact match disagree; False if math-verify reached no
    verdict.
    """
    return verified not in (exact, UNJUDGED)


def row_id(source: str, uuid: str, trace: int) -> str:
    """Returns a stable id for (source, uuid, trace): the first 16 hex digits of a SHA-256."""
    return hashlib.sha256("\0".join((source, uuid, str(trace))).encode()).hexdigest()[:16]
