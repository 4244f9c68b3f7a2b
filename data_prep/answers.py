"""Finding and comparing answers: which box of a text counts, and when two answers are the same.

Pure text functions. Everything here is linear in the length of its input, since the inputs are whatever
a model happened to write.
"""

from __future__ import annotations

import re

from data_prep.schema import THINK_CLOSE, THINK_OPEN

# A box that opens, any other escaped character (so that \{ and \} are not braces), or a brace.
_BRACE = re.compile(r"\\boxed\s*\{|\\.|[{}]", re.DOTALL)

_WRAPPER = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_FRACTION = re.compile(r"\\[dt]frac(?![a-zA-Z])")
_DROPPED = re.compile(
    r"\\(?:left|right)(?![a-zA-Z])"  # sizes of brackets
    r"|\^\s*(?:\\circ(?![a-zA-Z])|\{\s*\\circ\s*\})|\\degree(?![a-zA-Z])|°"  # degrees
    r"|\\?[$%]"  # dollars, maths delimiters, percent
    r"|\\[,;:! ]|~|\s"  # spaces
)
_THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?")
_WHOLE = re.compile(r"([+-]?)([0-9]+)(?:\.0*)?")


def visible(text: str) -> str | None:
    """What a reader is shown: the part after the last ``</think>``, without a think block reopened there.

    The whole text when it never thinks (a base model); None when it opens ``<think>`` and never closes it.
    """
    _, closed, after = text.rpartition(THINK_CLOSE)
    if closed:
        return after.partition(THINK_OPEN)[0]
    return None if THINK_OPEN in text else text


def last_box(text: str) -> tuple[str | None, bool]:
    """Content of the balanced ``\\boxed{}`` that opens last, and whether any box opens at all.

    Escaped braces do not count. Of nested boxes the innermost is taken.
    """
    opened: list[int | None] = []  # content's start for a box, None for another brace
    last: tuple[int, int] | None = None
    seen = False
    for match in _BRACE.finditer(text):
        token = match[0]
        if token.startswith("\\boxed"):
            seen = True
            opened.append(match.end())
        elif token == "{":
            opened.append(None)
        elif token == "}" and opened:
            start = opened.pop()
            if start is not None and (last is None or start > last[0]):
                last = (start, match.start())
    return (text[slice(*last)] if last else None), seen


def grade_state(text: str, finish_reason: str) -> tuple[str, str | None]:
    """How a rollout ended, and its headline answer when it gave one.

    ``finish_reason`` is ``stop`` or ``length``. Returns one of

    - ``boxed`` and the content of the last balanced box of the visible part,
    - ``truncated``: the budget ended it before such a box was complete,
    - ``unclosed_box``: it stopped, and every visible box lacks its closing brace,
    - ``box_in_think_only``: it stopped, and the only balanced box is in the think block,
    - ``no_box``: it stopped without any.

    The answer is None in every state but the first.
    """
    shown = visible(text)
    box, opened = last_box(shown) if shown is not None else (None, False)
    if box is not None:
        return "boxed", box
    if finish_reason == "length":
        return "truncated", None
    if opened:
        return "unclosed_box", None
    return ("no_box" if last_box(text)[0] is None else "box_in_think_only"), None


def normalise(answer: str) -> str:
    """The canonical spelling of an answer; two answers are the same when their spellings are.

    In order: ``\\text{..}``, ``\\mathrm{..}`` and their kin become their content; ``\\dfrac`` and ``\\tfrac``
    become ``\\frac``; ``\\left`` and ``\\right``, degree signs, ``$`` and ``\\$``, ``%`` and ``\\%`` and all
    spaces go; ``{,}`` becomes a comma; trailing periods and a leading ``+`` go. A number loses its thousands
    commas, and a whole number its leading zeros and a trailing ``.0`` ("025", "25.0" and "25" are one; "-0"
    is "0"). No arithmetic is done: ``0.5`` and ``\\frac{1}{2}`` stay different (math-verify's business).
    """
    for _ in range(3):  # wrappers nest, though never deeply in an answer
        answer = _WRAPPER.sub(r"\1", answer)
    answer = _DROPPED.sub("", _FRACTION.sub(r"\\frac", answer)).replace("{,}", ",")
    answer = answer.rstrip(".").removeprefix("+")
    if _THOUSANDS.fullmatch(answer):
        answer = answer.replace(",", "")
    if whole := _WHOLE.fullmatch(answer):
        digits = whole[2].lstrip("0")
        answer = whole[1].strip("+") + digits if digits else "0"
    return answer


def is_exact(extracted: str | None, gold: str) -> bool:
    """True when the two answers have the same canonical spelling. No answer is never right."""
    return extracted is not None and normalise(extracted) == normalise(gold)
