"""Parses source records into rows: verified traces of the OpenR1 schema, or a user's own
columns.
"""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections.abc import Collection
from types import NoneType
from typing import Any

from common.records import LONE_SURROGATE, THINK_CLOSE, THINK_OPEN, Row, row_id
from common.seeded_order import seeded_key
from data_prep.answers.answer_is import NEWLINES, state, stated
from data_prep.answers.boxed import grade_state, is_exact
from data_prep.rows.conversation import CONVERSATION_DROPS, conversation
from data_prep.rows.dropped import Dropped
from data_prep.source.shards import BadRecord, Record

RECORD_DROPS = (
    "question type",
    *CONVERSATION_DROPS,
    "no answer",
    "no boxed answer",
)
TRACE_DROPS = ("no complete trace", "no verified trace", "no trace whose own box is the answer")
"""Reasons why a record has no usable trace: the check failed by the trace that passed the most
checks.
"""


def from_openr1(record: Record, verifier: str, choice: str, seed: int) -> Row:
    """Returns a row with one trace that is complete, verified and has the correct boxed answer, all
    at the same index.

    The schema only promises that some trace is right, so each trace is judged by its own flags; a
    null flag counts as not verified. Among several, ``choice`` takes the first, shortest, longest
    or a random one (by a hash of seed, uuid and index). Raises Dropped with the reason, BadRecord
    for a record of another schema.
    """
    generations = _column(record, "generations", list)
    complete = _aligned(record, "is_reasoning_complete", len(generations))
    finish = _aligned(record, "finish_reasons", len(generations), required=False)
    verified = _aligned(record, verifier, len(generations))
    answer = _answer(record, "answer")
    passed, good = 0, []
    for i, text in enumerate(generations):
        if not isinstance(text, str):
            raise BadRecord(
                f"{record.where}: generation {i} must be text, not {type(text).__name__}"
            )
        checks = (
            lambda i=i: complete[i] is True and finish[i] in (None, "stop"),
            lambda i=i: verified[i] is True,
            lambda text=text: _answers(text, answer),
        )
        failed = next((k for k, holds in enumerate(checks) if not holds()), None)
        if failed is None:
            good.append(i)
        else:
            passed = max(passed, failed)
    if not good:
        raise Dropped(TRACE_DROPS[passed])
    rank = {
        "first": lambda i: i,
        "shortest": lambda i: (len(generations[i]), i),
        "longest": lambda i: (-len(generations[i]), i),
        "random": lambda i: seeded_key(seed, f"{record.values.get('uuid')}:{i}"),
    }[choice]
    trace = min(good, key=rank)
    return _row(record, trace, _column(record, "problem", str), generations[trace], answer)


def question_type_allowed(record: Record, allowed: Collection[str] | None) -> bool:
    """Returns whether the record's ``question_type`` is among ``allowed``; None allows all.

    Raises BadRecord when the column is missing or not text.
    """
    return allowed is None or _column(record, "question_type", (str, NoneType)) in allowed


def from_columns(
    record: Record, columns: dict[str, str], clean: str | None, answer_style: str = "boxed"
) -> Row:
    """Returns a row from a record of another schema, mapped by ``data.columns``.

    A solution without a think block is put into one, followed by the answer in its style (boxed or
    answer_is). Raises Dropped when there is no answer or the conversation does not end with a
    user's and an assistant's turn, BadRecord for a missing column, one of another type, or a
    solution with ``</think>`` alone.
    """
    earlier = ""
    if "messages" in columns:
        column = columns["messages"]
        earlier, problem, solution = conversation(
            _column(record, column, list), f"{record.where}: column {column!r}"
        )
        found = (
            stated(solution) if answer_style == "answer_is" else grade_state(solution, "stop")[1]
        )
        answer = _answer_or_number(record, columns["answer"]) if "answer" in columns else found
        if answer is None:
            raise Dropped("no boxed answer")
    else:
        problem, solution = (_column(record, columns[c], str) for c in ("problem", "solution"))
        answer = _answer_or_number(record, columns["answer"])
    if clean == "gsm8k":
        solution = clean_gsm8k(solution)
    if THINK_CLOSE in solution and THINK_OPEN not in solution:
        raise BadRecord(
            f"{record.where}: the solution has {THINK_CLOSE} but no {THINK_OPEN} (its prompt "
            f"probably ended with it): put {THINK_OPEN} before the solution"
        )
    if THINK_OPEN not in solution:
        ending = f"\n\nThe answer is \\boxed{{{answer}}}."
        if answer_style == "answer_is":
            ending = "\n" * NEWLINES + state(answer)
        solution = f"{THINK_OPEN}\n{solution.strip()}\n{THINK_CLOSE}{ending}"
    return _row(record, 0, problem, solution, answer, columns.get("uuid"), earlier)


def columns_read(
    columns: dict[str, str] | None, verifier: str, question_types: Collection[str] | None
) -> set[str]:
    """Returns the columns of a record that are used for a row."""
    if columns is None:
        used = {
            "problem",
            "generations",
            "answer",
            "is_reasoning_complete",
            "finish_reasons",
            verifier,
            "uuid",
        }
    else:
        used = {column for column in columns.values() if column is not None}
    return used | {"source"} | ({"question_type"} if question_types is not None else set())


def generated(record: Record, columns: dict[str, str]) -> tuple[str, str, str]:
    """Returns the problem, the solution with its annotations, and the answer of a GSM8K-style
    record, as input of the checks in ``data_prep.synth``. Raises BadRecord for a missing column,
    Dropped for a null answer.
    """
    problem, solution = (_column(record, columns[c], str) for c in ("problem", "solution"))
    return problem, solution.split("\n####")[0], _answer_or_number(record, columns["answer"])


def clean_gsm8k(solution: str) -> str:
    """Returns a solution without GSM8K's ``<<...>>`` calculator annotations and its final ``####
    answer`` line.
    """
    return re.sub(r"<<[^<>]*>>", "", solution).split("\n####")[0]


def _answers(text: str, answer: str) -> bool:
    state, extracted = grade_state(text, "stop")
    return state == "boxed" and extracted is not None and is_exact(extracted, answer)


def _row(
    record: Record,
    trace: int,
    problem: str,
    solution: str,
    answer: str,
    uuid_column: str | None = "uuid",
    earlier: str = "",
) -> Row:
    """Returns the row, whose id is derived from its uuid, or from the problem's text if it has
    none.

    Raises BadRecord when the text has a lone surrogate.
    """
    source = str(record.values.get("source") or "unknown")
    if any(LONE_SURROGATE.search(text) for text in (problem, solution, answer, earlier)):
        raise BadRecord(f"{record.where}: a lone surrogate, which is not text")
    given = _column(record, uuid_column, str) if uuid_column in record.values else None
    # Without earlier turns this is the problem's hash, from which old datasets' ids are made.
    uuid = given or hashlib.sha256((earlier + problem).encode()).hexdigest()[:16]
    # NFC, as the tokenizer normalises, so that the tokens decode to exactly this text.
    problem, solution = (unicodedata.normalize("NFC", text.strip()) for text in (problem, solution))
    return Row(row_id(source, uuid, trace), source, uuid, trace, problem, solution, answer, earlier)


def _answer(record: Record, name: str) -> str:
    if name in record.values and record.values[name] is None:
        raise Dropped("no answer")
    return _column(record, name, str)


def _answer_or_number(record: Record, name: str) -> str:
    """Returns the answer as text; a whole number loses its decimals, so 108.0 is "108"."""
    value = record.values.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _answer(record, name)
    if math.isnan(value):
        raise Dropped("no answer")
    return str(int(value)) if value == value // 1 else str(value)


def _column(record: Record, name: str, kind: type | tuple[type, ...]) -> Any:
    if name not in record.values:
        raise BadRecord(
            f"{record.where}: no column {name!r}; it has {', '.join(record.values)} (set "
            "data.columns)"
        )
    value = record.values[name]
    if not isinstance(value, kind):
        wanted = (kind if isinstance(kind, type) else kind[0]).__name__
        raise BadRecord(
            f"{record.where}: column {name!r} must be {wanted}, not {type(value).__name__}"
        )
    return value


def _aligned(record: Record, name: str, length: int, required: bool = True) -> list[Any]:
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
