"""Parses source records into rows: verified traces of the OpenR1 schema, or a user's own
columns.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Collection
from types import NoneType

from common.records import LONE_SURROGATE, THINK_CLOSE, THINK_OPEN, Row, row_id
from common.seeded_order import seeded_key
from data_prep.answers.answer_is import NEWLINES, state, stated
from data_prep.answers.boxed import grade_state, is_exact
from data_prep.rows.columns import aligned, answer_of, text_of, value_of
from data_prep.rows.conversation import CONVERSATION_DROPS, conversation
from data_prep.rows.dropped import Dropped, head, tail
from data_prep.rows.own_answer import contradicts
from data_prep.source.shards import BadRecord, Record

OTHER_ANSWER = "solution that ends with another answer"
RECORD_DROPS = (
    "question type",
    *CONVERSATION_DROPS,
    "no answer",
    "no boxed answer",
    OTHER_ANSWER,
)
_IN_DOLLARS = re.compile(r"\A\s*\$([^$]*)\$\s*\Z")
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
    generations = value_of(record, "generations", list)
    complete = aligned(record, "is_reasoning_complete", len(generations))
    finish = aligned(record, "finish_reasons", len(generations), required=False)
    verified = aligned(record, verifier, len(generations))
    answer = answer_of(record, "answer")
    passed, best, good = -1, "", []
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
        elif failed > passed:
            passed, best = failed, text
    if not good:
        raise Dropped(TRACE_DROPS[max(0, passed)], _beside(answer, best))
    rank = {
        "first": lambda i: i,
        "shortest": lambda i: (len(generations[i]), i),
        "longest": lambda i: (-len(generations[i]), i),
        "random": lambda i: seeded_key(seed, f"{record.values.get('uuid')}:{i}"),
    }[choice]
    trace = min(good, key=rank)
    return _row(record, trace, value_of(record, "problem", str), generations[trace], answer)


def question_type_allowed(record: Record, allowed: Collection[str] | None) -> bool:
    """Returns whether the record's ``question_type`` is among ``allowed``; None allows all.

    Raises BadRecord when the column is missing or not text.
    """
    if allowed is None:
        return True
    if "question_type" not in record.values:
        raise BadRecord(
            f"{record.where}: no column 'question_type', which data.question_types selects by: set "
            "data.question_types=null to keep all rows"
        )
    return value_of(record, "question_type", (str, NoneType)) in allowed


def from_columns(
    record: Record, columns: dict[str, str], clean: str | None, answer_style: str = "boxed"
) -> Row:
    """Returns a row from a record of another schema, mapped by ``data.columns``.

    A solution without a think block is put into one, followed by the answer in its style (boxed or
    answer_is). Raises Dropped when there is no answer, the solution ends with another one, or the
    conversation does not end with a user's and an assistant's turn; BadRecord for a missing column,
    one of another type, or a solution with ``</think>`` alone.
    """
    earlier = ""
    if "messages" in columns:
        name = columns["messages"]
        earlier, problem, solution = conversation(
            value_of(record, name, list), f"{record.where}: column {name!r}"
        )
        found = (
            stated(solution) if answer_style == "answer_is" else grade_state(solution, "stop")[1]
        )
        answer = answer_of(record, columns["answer"]) if "answer" in columns else found
        if answer is None:
            raise Dropped("no boxed answer", tail(solution))
    else:
        problem, solution = (value_of(record, columns[c], str) for c in ("problem", "solution"))
        answer = answer_of(record, columns["answer"])
    if THINK_CLOSE in solution and THINK_OPEN not in solution:
        raise BadRecord(
            f"{record.where}: the solution has {THINK_CLOSE} but no {THINK_OPEN} (its prompt "
            f"probably ended with it): put {THINK_OPEN} before the solution"
        )
    if "answer" in columns and contradicts(solution, answer):
        raise Dropped(OTHER_ANSWER, _beside(answer, solution))
    if clean == "gsm8k":
        solution = clean_gsm8k(solution)
    if THINK_OPEN not in solution:
        bare = _IN_DOLLARS.sub(r"\1", answer)
        ending = f"\n\nThe answer is \\boxed{{{bare}}}."
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
    problem, solution = (value_of(record, columns[c], str) for c in ("problem", "solution"))
    return problem, solution.split("\n####")[0], answer_of(record, columns["answer"])


def clean_gsm8k(solution: str) -> str:
    """Returns a solution without GSM8K's ``<<...>>`` calculator annotations and its final ``####
    answer`` line.
    """
    return re.sub(r"<<[^<>]*>>", "", solution).split("\n####")[0]


def _beside(answer: str, text: str) -> str:
    """Returns the end of a text beside the answer that its record states."""
    return f"answer {head(answer, 60)}: {tail(text, 220)}"


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
    given = text_of(record, uuid_column) if uuid_column in record.values else None
    # Without earlier turns this is the problem's hash, from which old datasets' ids are made.
    uuid = given or hashlib.sha256((earlier + problem).encode()).hexdigest()[:16]
    # NFC, as the tokenizer normalises, so that the tokens decode to exactly this text.
    problem, solution = (unicodedata.normalize("NFC", text.strip()) for text in (problem, solution))
    return Row(row_id(source, uuid, trace), source, uuid, trace, problem, solution, answer, earlier)
