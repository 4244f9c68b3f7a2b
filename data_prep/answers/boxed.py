"""Extracts and compares answers: which box of a text counts, and whether it holds the right answer.

Pure text functions. Everything here is linear in the length of its input, since a model may write
anything of any length.
"""

from __future__ import annotations

import re

from common.records import THINK_CLOSE, THINK_OPEN
from data_prep.answers.normalise import normalise

BRACES = 1_000_000
"""Maximum number of braces and boxes to inspect, from the last box backwards; boxes before those
count as unclosed.
"""
_BOX = re.compile(r"\\boxed\s*\{")
# A brace, or an escaped character (so that \{ and \} do not count). Starting with a character set
# makes it fast.
_BRACE = re.compile(r"[{}\\](?:(?<=\\).)?", re.DOTALL)


def visible(text: str) -> str | None:
    """Returns what a reader sees: the part after the last ``</think>``, up to a ``<think>`` that
    reopens there.

    The full text if it has no think tags (a base model); None if it opens ``<think>`` and never
    closes it.
    """
    _, closed, after = text.rpartition(THINK_CLOSE)
    if closed:
        return after.partition(THINK_OPEN)[0]
    return None if THINK_OPEN in text else text


def last_box(text: str) -> tuple[str | None, bool]:
    """Returns the content of the last-opening balanced ``\\boxed{}``, and whether an unclosed box
    was found.

    Escaped braces do not count. Among nested boxes the innermost is taken. Empty boxes are skipped:
    they echo the prompt's instruction.
    """
    # From the last box backwards. A box before an unclosed one has to close before that one opens.
    unclosed, looked = False, 0
    before = end = len(text)
    while looked < BRACES:
        close = text.rfind("}", 0, end) + 1
        unclosed = unclosed or _BOX.search(text, close, end) is not None
        end = close
        before = text.rfind("\\boxed", 0, min(before, end))
        if before < 0:
            return None, unclosed
        looked += 1
        box = _BOX.match(text, before, end)
        if box is None:
            continue
        depth = 1
        for brace in _BRACE.finditer(text, box.end(), end):
            looked += 1
            depth += (brace[0] == "{") - (brace[0] == "}")
            if depth == 0 or looked >= BRACES:
                break
        if depth:
            unclosed, end = True, before
        elif content := text[box.end() : brace.start()].strip():
            return content, unclosed
    return None, True


def grade_state(text: str, finish_reason: str) -> tuple[str, str | None]:
    """Returns how a rollout ended, and its answer.

    ``finish_reason`` is ``stop`` or ``length``. The state is one of

    - ``boxed``: the answer is the content of the last balanced, non-empty box of the visible part,
    - ``truncated``: the budget cut it off before such a box was complete,
    - ``unclosed_box``: it stopped, and a visible box lacks its closing brace,
    - ``box_in_think_only``: it stopped, and balanced boxes are only in the think block,
    - ``no_box``: it stopped without a box.

    The answer is None in every state except ``boxed``.
    """
    shown = visible(text)
    box, unclosed = last_box(shown) if shown is not None else (None, False)
    if box is not None:
        return "boxed", box
    if finish_reason == "length":
        return "truncated", None
    if unclosed:
        return "unclosed_box", None
    return ("no_box" if last_box(text)[0] is None else "box_in_think_only"), None


def is_exact(extracted: str | None, gold: str) -> bool:
    """Returns whether the two answers have the same canonical spelling; False for None and for
    empty answers.
    """
    return extracted is not None and normalise(extracted) == normalise(gold) != ""
