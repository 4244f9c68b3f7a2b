"""The answer style ``answer_is``: a number stated in words, as in "The answer is 72.", rather than in a box."""

from __future__ import annotations

import re

from data_prep.answers import normalise, visible

_NUMBER = r"(-?\$?[0-9][0-9,]*(?:\.[0-9]+)?|-?\$?\.[0-9]+)"
_STATED = re.compile(rf"answer\s{{0,3}}(?:is|:)[\s:*]{{0,5}}{_NUMBER}", re.IGNORECASE)
_ANY = re.compile(rf"(?<![0-9.]){_NUMBER}")


def state(answer: str) -> str:
    """The sentence that ends a solution."""
    return f"The answer is {normalise(answer)}."


def stated(text: str) -> str | None:
    """The number behind the first "answer is" (or "answer:") of the visible part, else its last number; else None.

    The rule of Qwen3-4B-GSM8K-Synth-35K's model card. Linear in the length of the text.
    """
    shown = visible(text) or ""
    if found := _STATED.search(shown):
        return found[1]
    numbers = _ANY.findall(shown)
    return numbers[-1] if numbers else None
