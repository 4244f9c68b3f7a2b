"""Finding and comparing answers: which box of a text counts, and when two answers are the same.

Pure text functions. Everything here is linear in the length of its input, since the inputs are whatever
a model happened to write.
"""

from __future__ import annotations

import re

from common.records import THINK_CLOSE, THINK_OPEN

BRACES = 1_000_000
"""Braces and boxes that are looked at, from the last box backwards; boxes before them count as unclosed."""
LONGEST = 1000
"""Characters of an answer that is normalised; a longer one equals only itself."""

_BOX = re.compile(r"\\boxed\s*\{")
# A brace, or an escaped character (so that \{ and \} are none). To begin with one set makes it fast to find.
_BRACE = re.compile(r"[{}\\](?:(?<=\\).)?", re.DOTALL)

_MINUS = str.maketrans("\u2212\u2013", "--")
_WRAPPER = re.compile(r"\\(?:text(?:bf|it|rm)?|math(?:bf|it|rm|sf)|boldsymbol|mbox)\s*\{([^{}]*)\}")
_FRACTION_NAME = re.compile(r"\\[cdt]frac(?![a-zA-Z])")
_FRACTION = re.compile(r"\\frac\s*(?:\{([^{}]*)\}|([0-9]))\s*(?:\{([^{}]*)\}|([0-9]))")
_DROPPED = re.compile(
    r"\\(?:left|right|displaystyle)(?![a-zA-Z])"  # sizes
    r"|(?:\^\s*(?:\\circ(?![a-zA-Z])|\{\s*\\circ\s*\})|\\degree(?![a-zA-Z])|°)(?:\s*[CF](?![a-zA-Z]))?"  # degrees
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
    r"(?P<before>(?:(?:[a-zA-Z]|[A-Z]{2,4})(?:_\{?[a-zA-Z0-9]+\}?|\([a-zA-Z0-9]+\))?|[a-w](?: ?\+ ?[a-w])+) ?="
    r"|[a-zA-Z]{2,}(?: [a-zA-Z]+)*(?: ?[:=] ?| ))? ?"
    r"(?P<number>[+-]? ?(?:\\frac\{-?[0-9]+\}\{[0-9]+\}|[0-9.][0-9,.]*(?:/[0-9]+)?))"
    r"(?P<after>(?:(?: +[a-zA-Z]{4,}| *(?<![a-zA-Z])(?:[ckm]m|kg|ft|in|mi|mph|sq|min|hrs?|lbs?)(?![a-zA-Z]))"
    r"(?: ?\^\{?[0-9]\}?)?(?:/[a-z]+)?)*)"
)
# With one of these beside it, a number is another number, or none.
_MEANING = re.compile(
    r"\b(?:minus|negative|not|no|plus|times|over|and|or|more|less|than|least|most|about|mod|base|squared|cubed"
    r"|half|halves|thirds|quarters|fourths|fifths|sixths|sevenths|eighths|ninths|tenths|hundredths|thousandths"
    r"|(?:dozen|hundred|thousand|[a-z]*illion)s?"
    r"|factorial|sqrt|log|ln|max|sin|cos|tan|alpha|beta|gamma|theta|infinity)\b",
    re.IGNORECASE,
)


def visible(text: str) -> str | None:
    """What a reader is shown: the part after the last ``</think>``, without a think block reopened there.

    The whole text when it never thinks (a base model); None when it opens ``<think>`` and never closes it.
    """
    _, closed, after = text.rpartition(THINK_CLOSE)
    if closed:
        return after.partition(THINK_OPEN)[0]
    return None if THINK_OPEN in text else text


def last_box(text: str) -> tuple[str | None, bool]:
    """Content of the balanced ``\\boxed{}`` that opens last, and whether one was found that never closes.

    Escaped braces do not count. Of nested boxes the innermost is taken. An empty box is no answer: it is an
    echo of the prompt's instruction, and passed over.
    """
    # From the last box backwards. One that does not close leaves those before it only the text up to itself.
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
    """How a rollout ended, and its headline answer when it gave one.

    ``finish_reason`` is ``stop`` or ``length``. Returns one of

    - ``boxed`` and the content of the last balanced box of the visible part that is not empty,
    - ``truncated``: the budget ended it before such a box was complete,
    - ``unclosed_box``: it stopped, and a visible box lacks its closing brace,
    - ``box_in_think_only``: it stopped, and the only balanced box is in the think block,
    - ``no_box``: it stopped without any.

    The answer is None in every state but the first.
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
    """The canonical spelling of an answer; two answers are the same when their spellings are.

    In order:

    1. Of more than ``LONGEST`` characters, nothing but the surrounding spaces changes.
    2. ``\\text{..}``, ``\\mathrm{..}``, ``\\mbox{..}`` and their kin become their content, a minus sign of any
       kind ``-``, ``\\dfrac`` and ``\\tfrac`` ``\\frac``, ``\\frac12`` ``\\frac{1}{2}``, ``{,}`` a comma.
    3. ``\\left`` and ``\\right``, degree signs, ``$`` and ``\\$``, ``%`` and ``\\%``, maths delimiters, braces
       around the whole and trailing periods go.
    4. A number in words becomes the number: before it a name (``x =``, ``f(2) =``, ``m + n =``) or words (``The
       answer is 16``), after it a unit (``16 cm^2``) or words of four letters or more (``16 apples``); not where a
       word changes it (``16 million``, ``16 or more``, ``minus 16``). Other equations (``x + 2y = 0``) stay whole.
    5. A number loses a leading ``+``, its thousands commas, leading zeros and trailing zeros of its decimals
       (``016``, ``16.0``, ``+16`` and ``16`` are one, and so are ``.5`` and ``0.50``; ``-0`` is ``0``). A fraction
       of whole numbers is written ``a/b``, and a choice ``(C)`` ``C``.
    6. Spaces go, but for one between two numbers (``12 345`` is one number, ``12 34`` are two).

    No arithmetic is done: ``0.5`` and ``\\frac{1}{2}`` stay different (math-verify's business).
    """
    answer = answer.strip()
    if len(answer) > LONGEST:
        return answer
    for _ in range(3):  # wrappers nest, though never deeply in an answer
        answer = _WRAPPER.sub(r" \1 ", answer)
    answer = _FRACTION_NAME.sub(r"\\frac", _DROPPED.sub("", answer.translate(_MINUS)))
    answer = _SPACES.sub(" ", answer.replace("{,}", ",")).strip(" ")
    answer = _FRACTION.sub(
        lambda m: rf"\frac{{{(m[1] or m[2] or '').strip()}}}{{{(m[3] or m[4] or '').strip()}}}", answer
    )
    answer = answer.rstrip(". ")
    if answer[:1] == "{" and answer.find("}") == len(answer) - 1:
        answer = answer[1:-1].strip(" ")
    if (found := _IN_WORDS.fullmatch(answer)) and not _MEANING.search(f"{found['before']} {found['after']}"):
        answer = found["number"]
    if number := _NUMBER.fullmatch(answer):
        return _spell(number)
    answer = _IDLE_SPACE.sub("", answer)
    if len(answer) == 3 and answer[0] == "(" and answer[1].isupper() and answer[2] == ")":
        return answer[1]
    return answer.removeprefix("+")


def is_exact(extracted: str | None, gold: str) -> bool:
    """True when the two answers have the same canonical spelling. No answer is never right, nor is an empty one."""
    return extracted is not None and normalise(extracted) == normalise(gold) != ""


def _spell(number: re.Match[str]) -> str:
    if number["over"]:
        sign = "-" if (number["sign"] == "-") != (number["minus"] == "-") else ""
        return f"{sign}{number['over']}/{number['under']}"
    whole = (number["whole"] or "").replace(",", "").replace(" ", "").lstrip("0")
    decimals = (number["decimals"] or "").rstrip("0")
    sign = "-" if number["sign"] == "-" and (whole or decimals) else ""
    return f"{sign}{whole or '0'}{'.' + decimals if decimals else ''}"
