"""Extracts and compares answers: which box of a text counts, and when two answers are the same.

Pure text functions. Everything here is linear in the length of its input, since a model may write
anything of any length.
"""

from __future__ import annotations

import re

from common.records import THINK_CLOSE, THINK_OPEN

BRACES = 1_000_000
"""Most braces and boxes to inspect, from the last box backwards; boxes before those count as
unclosed.
"""
LONGEST = 1000
"""Most characters of an answer that is normalised; a longer one equals only itself."""

_BOX = re.compile(r"\\boxed\s*\{")
# A brace, or an escaped character (so that \{ and \} do not count). Starting with a character set
# makes it fast.
_BRACE = re.compile(r"[{}\\](?:(?<=\\).)?", re.DOTALL)

_MINUS = str.maketrans("\u2212\u2013", "--")
_WRAPPER = re.compile(r"\\(?:text(?:bf|it|rm)?|math(?:bf|it|rm|sf)|boldsymbol|mbox)\s*\{([^{}]*)\}")
_FRACTION_NAME = re.compile(r"\\[cdt]frac(?![a-zA-Z])")
_FRACTION = re.compile(r"\\frac\s*(?:\{([^{}]*)\}|([0-9]))\s*(?:\{([^{}]*)\}|([0-9]))")
_DROPPED = re.compile(
    r"\\(?:left|right|displaystyle)(?![a-zA-Z])"  # sizes
    r"|(?:\^\s*(?:\\circ(?![a-zA-Z])|\{\s*\\circ\s*\})|\\degree(?![a-zA-Z])|°)"
    r"(?:\s*[CF](?![a-zA-Z]))?"  # degrees
    r"|\\?[$%]|(?<!\\)\\[()\[\]]"  # dollars, percent, maths delimiters
    r"|\\!\s*"  # a space of no width, as in 1,\! 625
)
_SPACES = re.compile(r"(?:\\[,;: ]|\\q?quad(?![a-zA-Z])|~|\s)+")
_IDLE_SPACE = re.compile(r"(?<![0-9]) | (?![0-9])")
_NUMBER = re.compile(
    r"(?P<sign>[+-]?) ?(?:"
    r"(?=\.?[0-9])(?P<whole>[0-9]{1,3}(?:[, ][0-9]{3})+|[0-9]*)(?:\.(?P<decimals>[0-9]*))?"
    r"|\\frac\{(?P<minus>-?)(?P<over>[0-9]+)\}\{(?P<under>[0-9]+)\})"
)
_IN_WORDS = re.compile(
    r"(?P<before>(?:(?:[a-zA-Z]|[A-Z]{2,4})(?:_\{?[a-zA-Z0-9]+\}?|\([a-zA-Z0-9]+\))?"
    r"|[a-w](?: ?\+ ?[a-w])+) ?="
    r"|[a-zA-Z]{2,}(?: [a-zA-Z]+)*(?: ?[:=] ?| ))? ?"
    r"(?P<number>[+-]? ?(?:\\frac\{-?[0-9]+\}\{[0-9]+\}|[0-9.][0-9,.]*(?:/[0-9]+)?))"
    r"(?P<after>(?:(?: +[a-zA-Z]{4,}"
    r"| *(?<![a-zA-Z])(?:[ckm]m|kg|ft|in|mi|mph|sq|min|hrs?|lbs?)(?![a-zA-Z]))"
    r"(?: ?\^\{?[0-9]\}?)?(?:/[a-z]+)?)*)"
)
# Next to one of these words, a number means another number, or is not a number.
_MEANING = re.compile(
    r"\b(?:minus|negative|not|no|plus|times|over|and|or|more|less|than|least|most|about|mod|base|squared|cubed"
    r"|half|halves|thirds|quarters|fourths|fifths|sixths|sevenths|eighths|ninths|tenths|hundredths|thousandths"
    r"|(?:dozen|hundred|thousand|[a-z]*illion)s?"
    r"|factorial|sqrt|log|ln|max|sin|cos|tan|alpha|beta|gamma|theta|infinity)\b",
    re.IGNORECASE,
)


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


def normalise(answer: str) -> str:
    """Returns the canonical spelling of an answer; two answers are the same when their spellings
    are equal.

    In order:

    1. An answer of more than ``LONGEST`` characters only loses its surrounding spaces.
    2. ``\\text{..}``, ``\\mathrm{..}``, ``\\mbox{..}`` and the like become their content, any kind
       of minus sign ``-``, ``\\dfrac`` and ``\\tfrac`` ``\\frac``, ``\\frac12`` ``\\frac{1}{2}``,
       ``{,}`` a comma.
    3. ``\\left`` and ``\\right``, degree signs, ``$`` and ``\\$``, ``%`` and ``\\%``, maths
       delimiters, braces around the answer and trailing periods are removed.
    4. A number with words around it becomes the number. Allowed before it: a name (``x =``, ``f(2)
       =``, ``m + n =``) or words (``The answer is 16``); after it: a unit (``16 cm^2``) or words of
       four letters or more (``16 apples``). Not if a word changes the number (``16 million``, ``16
       or more``, ``minus 16``). Other equations (``x + 2y = 0``) are unchanged.
    5. A number loses a leading ``+``, thousands commas, leading zeros and trailing zeros of its
       decimals (``016``, ``16.0``, ``+16`` and ``16`` are the same, and so are ``.5`` and ``0.50``;
       ``-0`` is ``0``). A fraction of integers is written ``a/b``, and a choice ``(C)`` as ``C``.
    6. Spaces are removed, except one between two numbers (``12 345`` is one number, ``12 34`` are
       two).

    No arithmetic is done: ``0.5`` and ``\\frac{1}{2}`` stay different (math-verify compares
    values).
    """
    answer = answer.strip()
    if len(answer) > LONGEST:
        return answer
    for _ in range(3):  # wrappers nest, though never deeply in an answer
        answer = _WRAPPER.sub(r" \1 ", answer)
    answer = _FRACTION_NAME.sub(r"\\frac", _DROPPED.sub("", answer.translate(_MINUS)))
    answer = _SPACES.sub(" ", answer.replace("{,}", ",")).strip(" ")
    answer = _FRACTION.sub(
        lambda m: rf"\frac{{{(m[1] or m[2] or '').strip()}}}{{{(m[3] or m[4] or '').strip()}}}",
        answer,
    )
    answer = answer.rstrip(". ")
    if answer[:1] == "{" and answer.find("}") == len(answer) - 1:
        answer = answer[1:-1].strip(" ")
    if (found := _IN_WORDS.fullmatch(answer)) and not _MEANING.search(
        f"{found['before']} {found['after']}"
    ):
        answer = found["number"]
    if number := _NUMBER.fullmatch(answer):
        return _spell(number)
    answer = _IDLE_SPACE.sub("", answer)
    if len(answer) == 3 and answer[0] == "(" and answer[1].isupper() and answer[2] == ")":
        return answer[1]
    return answer.removeprefix("+")


def is_exact(extracted: str | None, gold: str) -> bool:
    """Returns whether the two answers have the same canonical spelling; False for None and for
    empty answers.
    """
    return extracted is not None and normalise(extracted) == normalise(gold) != ""


def _spell(number: re.Match[str]) -> str:
    if number["over"]:
        sign = "-" if (number["sign"] == "-") != (number["minus"] == "-") else ""
        return f"{sign}{number['over']}/{number['under']}"
    whole = (number["whole"] or "").replace(",", "").replace(" ", "").lstrip("0")
    decimals = (number["decimals"] or "").rstrip("0")
    sign = "-" if number["sign"] == "-" and (whole or decimals) else ""
    return f"{sign}{whole or '0'}{'.' + decimals if decimals else ''}"
