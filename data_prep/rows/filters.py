"""Row filters: named yes/no checks, applied in a fixed order and counted.

Each looks at one row alone; what needs every row (duplicates, benchmarks, the subset) is decided
after them.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from common.records import THINK_CLOSE, THINK_OPEN, Row
from data_prep.answers.answer_is import stated
from data_prep.answers.boxed import grade_state, is_exact
from data_prep.tokenizer.prompt import earlier_turns
from data_prep.tokenizer.tokenizers import CONTROL_TOKENS

NO_ANSWER = re.compile(r"(?i)\s*(?:not\s*found|proof|none|n/?a)?\s*")
"""Answers that OpenR1-Math-220k has for problems without a checkable answer."""
LOOPING = 0.10
"""Text that zlib compresses to less than this share is repetitive; verified long-think traces keep
0.25 to 0.4.
"""
LOOP_WINDOW = 4_000
"""Characters at the end that are also checked separately, because a loop begins late."""
FOREIGN_LETTERS = 3
"""A trace with at least this many letters of other scripts is mixed. A single Chinese word of two
characters passes.
"""

# Scripts that English mathematics does not use; Greek is notation.
_FOREIGN = re.compile(
    "[\u0400-\u052f\u0590-\u06ff\u0900-\u0dff\u0e00-\u0eff\u1100-\u11ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]"
)


@dataclass(frozen=True)
class Filter:
    """A check: ``keep`` returns whether a row is kept; ``name`` is the funnel's reason if it is
    not.
    """

    name: str
    keep: Callable[[Row], bool]


def standard(max_chars: int, answer_style: str) -> list[Filter]:
    """Returns the filters of a row's text, in the order applied; ``answer_style`` is boxed or
    answer_is.
    """
    return [
        Filter("no problem", lambda row: bool(row.problem)),
        Filter("no checkable answer", lambda row: not NO_ANSWER.fullmatch(row.answer)),
        Filter("control token in the text", _no_control_token),
        Filter("not exactly one think block", _one_think_block),
        _answered(answer_style),
        Filter(f"over {max_chars} characters", lambda row: len(row.solution) <= max_chars),
        Filter("degenerate repetition", _not_looping),
        Filter("mixed languages", _one_script),
    ]


def _answered(style: str) -> Filter:
    if style == "answer_is":
        return Filter(
            "answer not stated after the think block",
            lambda row: is_exact(stated(row.solution), row.answer),
        )
    return Filter(
        "no boxed answer after the think block",
        lambda row: grade_state(row.solution, "stop")[0] == "boxed",
    )


def _no_control_token(row: Row) -> bool:
    """Returns False if the text spells a control token: as that token, ``<|im_end|>`` would teach
    stopping there.

    Think tags are not allowed in the problem either.
    """
    texts = (row.problem, row.solution, *(turn["content"] for turn in earlier_turns(row)))
    spelled = any(token in text for token in CONTROL_TOKENS for text in texts)
    return not spelled and THINK_OPEN not in row.problem and THINK_CLOSE not in row.problem


def _one_think_block(row: Row) -> bool:
    text = row.solution
    return (
        text.startswith(THINK_OPEN) and text.count(THINK_OPEN) == 1 and text.count(THINK_CLOSE) == 1
    )


def _not_looping(row: Row) -> bool:
    return all(_kept_share(text) >= LOOPING for text in (row.solution, row.solution[-LOOP_WINDOW:]))


def _kept_share(text: str) -> float:
    """Returns compressed size / size in bytes; 1 for a text too short to judge."""
    data = text.encode()
    return len(zlib.compress(data, 1)) / len(data) if len(data) >= LOOP_WINDOW // 4 else 1.0


def _one_script(row: Row) -> bool:
    text = row.solution
    return text.isascii() or len(_FOREIGN.findall(text)) < FOREIGN_LETTERS
