"""Row filters: named yes/no checks, applied in a fixed order and counted.

Each examines a single row; decisions that need every row (duplicates, benchmarks, the subset)
follow.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from common.records import THINK_CLOSE, THINK_OPEN, Row
from data_prep.answers.answer_is import stated
from data_prep.answers.boxed import grade_state, is_exact
from data_prep.answers.normalise import normalise
from data_prep.rows.dropped import around, head, tail
from data_prep.rows.language import FOREIGN_SCRIPT, is_english
from data_prep.rows.problem_faults import asks_for_proof, holds_solution, needs_picture
from data_prep.tokenizer.prompt import all_turns, earlier_turns
from data_prep.tokenizer.tokenizers import CONTROL_TOKENS

NO_ANSWER = re.compile(r"(?i)\s*(?:not\s*found|proof|none|n/?a)?\s*")
"""Answers that OpenR1-Math-220k has for problems without a checkable answer."""
LOOPING = 0.10
"""Text that zlib compresses to less than this share is repetitive; verified long-think traces keep
0.25 to 0.4.
"""
LOOP_WINDOW = 4_000
"""Characters at the end that are also checked separately, because loops begin late."""
FOREIGN_LETTERS = 3
"""A problem or a trace with at least this many letters of other scripts is mixed. A single Chinese
word of two characters passes.
"""

_CONTROL = re.compile("|".join(map(re.escape, CONTROL_TOKENS)))
_CONTROL_OR_THINK = re.compile(f"{_CONTROL.pattern}|{THINK_OPEN}|{THINK_CLOSE}")


@dataclass(frozen=True)
class Filter:
    """A check: ``fault`` returns an excerpt of the part that fails, None for a row that is kept;
    ``name`` is the reason in the funnel for dropped rows.
    """

    name: str
    fault: Callable[[Row], str | None]

    def keep(self, row: Row) -> bool:
        """Returns whether a row is kept."""
        return self.fault(row) is None


def standard(max_chars: int, answer_style: str) -> list[Filter]:
    """Returns the filters of a row's text, in the order applied; ``answer_style`` is boxed or
    answer_is.
    """
    return [
        Filter("no problem", lambda row: None if row.problem else tail(row.solution)),
        Filter("no checkable answer", _no_checkable_answer),
        Filter("control token in the text", _control_token),
        Filter("not exactly one think block", _think_blocks),
        _answered(answer_style),
        Filter(
            f"over {max_chars} characters",
            lambda row: tail(row.solution) if len(row.solution) > max_chars else None,
        ),
        Filter("degenerate repetition", _looping),
        Filter("mixed languages", _other_script),
        Filter(
            "problem not in English",
            lambda row: None if is_english(row.problem) else head(row.problem),
        ),
        _about_problem("problem needs a picture", lambda row: needs_picture(row.problem)),
        _about_problem("problem asks for a proof", lambda row: asks_for_proof(row.problem)),
        _about_problem(
            "problem holds its solution", lambda row: holds_solution(row.problem, row.answer)
        ),
    ]


def _about_problem(name: str, place: Callable[[Row], int | None]) -> Filter:
    """Returns the filter of rows in whose problem ``place`` finds a fault."""

    def fault(row: Row) -> str | None:
        at = place(row)
        return None if at is None else around(row.problem, at)

    return Filter(name, fault)


def _no_checkable_answer(row: Row) -> str | None:
    if not NO_ANSWER.fullmatch(row.answer) and normalise(row.answer):
        return None
    return head(f"answer {row.answer!r}: {row.problem}")


def _answered(style: str) -> Filter:
    if style == "answer_is":
        return Filter(
            "answer not stated after the think block",
            lambda row: None if is_exact(stated(row.solution), row.answer) else tail(row.solution),
        )
    return Filter(
        "no boxed answer after the think block",
        lambda row: None if grade_state(row.solution, "stop")[0] == "boxed" else tail(row.solution),
    )


def _control_token(row: Row) -> str | None:
    """Finds the spelling of a control token. Encoded as that token, ``<|im_end|>`` would teach the
    model to stop there.

    Think tags are not allowed in the problem either.
    """
    earlier = [turn["content"] for turn in earlier_turns(row)]
    for text in (row.problem, row.solution, *earlier):
        pattern = _CONTROL_OR_THINK if text is row.problem else _CONTROL
        if found := pattern.search(text):
            return around(text, found.start())
    return None


def _think_blocks(row: Row) -> str | None:
    text = row.solution
    if not text.startswith(THINK_OPEN):
        return head(text)
    for tag in (THINK_OPEN, THINK_CLOSE):
        if text.count(tag) > 1:
            return around(text, text.rindex(tag))
    return None if THINK_CLOSE in text else tail(text)


def _looping(row: Row) -> str | None:
    text = row.solution
    if _kept_share(text[-LOOP_WINDOW:]) < LOOPING:
        return tail(text)
    if _kept_share(text) >= LOOPING:
        return None
    windows = range(0, len(text), LOOP_WINDOW)
    return tail(min((text[i : i + LOOP_WINDOW] for i in windows), key=_kept_share))


def _kept_share(text: str) -> float:
    """Returns compressed size / size in bytes; 1 for a text too short to judge."""
    data = text.encode()
    return len(zlib.compress(data, 1)) / len(data) if len(data) >= LOOP_WINDOW // 4 else 1.0


def _other_script(row: Row) -> str | None:
    for text in (all_turns(row), row.solution):
        if not text.isascii() and len(FOREIGN_SCRIPT.findall(text)) >= FOREIGN_LETTERS:
            found = FOREIGN_SCRIPT.search(text)
            assert found is not None
            return around(text, found.start())
    return None
