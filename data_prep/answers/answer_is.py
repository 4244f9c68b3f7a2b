"""The answer style ``answer_is``: a number stated as in "The answer is 72." instead of in a box."""

from __future__ import annotations

import re

from data_prep.answers.boxed import visible
from data_prep.answers.normalise import normalise

NEWLINES = 1
"""Newlines between ``</think>`` and the sentence. Datasets record the number: older ones have two.
"""

NUMBER = r"((?:-?\\?\$?|\\?\$-)(?:[0-9]+(?:,[0-9]+)*(?:\.[0-9]+)?|\.[0-9]+))"
STATED = r"answer\s{0,3}(?:is|:)[\s:*]{0,5}NUMBER"
ANY = r"(?<![0-9.])NUMBER"
"""Patterns of the rule; NUMBER in the last two stands for the first. The model card shows them."""

_STATED = re.compile(STATED.replace("NUMBER", NUMBER), re.IGNORECASE)
_ANY = re.compile(ANY.replace("NUMBER", NUMBER))


def state(answer: str) -> str:
    """Returns the sentence that ends a solution in this style."""
    return f"The answer is {normalise(answer)}."


def stated(text: str) -> str | None:
    """Returns the number after the first "answer is" (or "answer:") of the visible part, else its
    last number, or None.

    The rule of Qwen3-4B-GSM8K-Synth-35K's model card. Linear in the length of the text.
    """
    return _found(text)[1]


def stated_state(text: str, finish_reason: str) -> tuple[str, str | None]:
    """Returns how a rollout ended, and its answer or None; the counterpart of
    ``data_prep.answers.boxed.grade_state``.

    ``stated``: the number after "answer is"; ``truncated``: the budget cut it off before that;
    ``last_number``: it stopped without stating an answer, so its last number counts; ``no_number``:
    it stopped without any number.
    """
    kind, number = _found(text)
    return ("truncated", None) if finish_reason == "length" and kind != "stated" else (kind, number)


def _found(text: str) -> tuple[str, str | None]:
    shown = visible(text) or ""
    if found := _STATED.search(shown):
        return "stated", found[1]
    numbers = _ANY.findall(shown)
    return ("last_number", numbers[-1]) if numbers else ("no_number", None)
