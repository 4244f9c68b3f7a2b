"""Extracts answers as the code on Qwen3-4B-GSM8K-Synth-35K's model card does, to compare with its
figures.

It reads the whole text, thoughts included. The first number after "answer is" or "answer:" counts;
without one, the last number of at least two characters, so a single digit is never returned then.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from decimal import Decimal

_STATED = re.compile(r"answer\s*(?:is|:)\s*([-\d,]+\.?\d*)", re.IGNORECASE)
_RUN = re.compile(r"[-\d,]+")
_DECIMALS = re.compile(r"\.\d+")


def extract(text: str) -> tuple[str, str | None]:
    """Returns (state, answer): ``stated``, ``last_number`` or ``no_number``, and the number
    without an exponent, or None.

    Text that the published code fails to convert (``1-2``, ``,``) counts as no answer. Linear in
    the length of the text.
    """
    if found := _STATED.search(text):
        number = _number(found[1])
        return ("no_number" if number is None else "stated"), number
    found_last = deque(_numbers(text), maxlen=1)
    number = _number(found_last[0]) if found_last else None
    return ("no_number" if number is None else "last_number"), number


def graded(text: str, finish_reason: str) -> tuple[str, str | None]:
    """Returns ``extract``'s result, whatever ended the rollout, as on the card."""
    return extract(text)


def _numbers(text: str) -> Iterator[str]:
    """Yields what ``re.findall(r"([-\\d,]+\\.?\\d+)", text)`` returns, in linear time."""
    place = 0
    while run := _RUN.search(text, place):
        decimals = _DECIMALS.match(text, run.end())
        if decimals:
            yield run[0] + decimals[0]
            place = decimals.end()
            continue
        # Without decimals the pattern ends at the last digit, and needs a character before it.
        number = run[0].rstrip("-,")
        if len(number) > 1:
            yield number
        place = run.end()


def _number(text: str) -> str | None:
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        return None
    return f"{Decimal(repr(value)):f}"
