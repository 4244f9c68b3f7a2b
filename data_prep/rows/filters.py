"""Row filters: each a named question with one answer, asked in a fixed order and counted.

All look at one row alone; what needs every row (duplicates, benchmarks, the subset) is asked after them.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from common.records import THINK_CLOSE, THINK_OPEN, Row
from data_prep.answers.answer_is import stated
from data_prep.answers.boxed import grade_state, is_exact
from data_prep.tokenizer.tokenizers import CONTROL_TOKENS

NO_ANSWER = re.compile(r"(?i)\s*(?:not\s*found|proof|none|n/?a)?\s*")
"""Answers that OpenR1-Math-220k writes where there is nothing to check."""
LOOPING = 0.10
"""zlib keeps less than this share of a text that repeats itself; verified long-think traces keep 0.25 to 0.4."""
LOOP_WINDOW = 4_000
"""Characters at the end that are looked at by themselves: a loop begins late."""
FOREIGN_LETTERS = 3
"""Letters of other scripts from which on a trace is mixed: the shortest slip into Chinese is a word of two."""

# Scripts that English mathematics does not use; Greek is notation.
_FOREIGN = re.compile(
    "[\u0400-\u052f\u0590-\u06ff\u0900-\u0dff\u0e00-\u0eff\u1100-\u11ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]"
)


@dataclass(frozen=True)
class Filter:
    """Keeps a row when ``keep`` says so; ``name`` is the reason in the funnel when it does not."""

    name: str
    keep: Callable[[Row], bool]


def standard(max_chars: int, answer_style: str) -> list[Filter]:
    """The filters of a row's text, in the order they are asked; ``answer_style`` is boxed or answer_is."""
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
        return Filter("answer not stated after the think block", lambda row: is_exact(stated(row.solution), row.answer))
    return Filter("no boxed answer after the think block", lambda row: grade_state(row.solution, "stop")[0] == "boxed")


def _no_control_token(row: Row) -> bool:
    """Text that spells ``<|im_end|>`` or its like would be encoded as the token and teach stopping there."""
    texts = (row.problem, row.solution)
    spelled = any(token in text for token in CONTROL_TOKENS for text in texts)
    return not spelled and THINK_OPEN not in row.problem and THINK_CLOSE not in row.problem


def _one_think_block(row: Row) -> bool:
    text = row.solution
    return text.startswith(THINK_OPEN) and text.count(THINK_OPEN) == 1 and text.count(THINK_CLOSE) == 1


def _not_looping(row: Row) -> bool:
    return all(_kept_share(text) >= LOOPING for text in (row.solution, row.solution[-LOOP_WINDOW:]))


def _kept_share(text: str) -> float:
    """Compressed size over size; 1 for a text too short to say."""
    data = text.encode()
    return len(zlib.compress(data, 1)) / len(data) if len(data) >= LOOP_WINDOW // 4 else 1.0


def _one_script(row: Row) -> bool:
    text = row.solution
    return text.isascii() or len(_FOREIGN.findall(text)) < FOREIGN_LETTERS
