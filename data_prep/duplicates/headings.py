"""Removes the headings that collections add to a problem, such as "Example 7" or "3. (12 points)",
so that one problem under two headings compares equal.

For comparison only: the row keeps its heading. All patterns are anchored and bounded, so time is
linear in the text.
"""

from __future__ import annotations

import re

PARTS = 8
"""Maximum number of heading parts to remove, such as ``##``, ``Task B-1.3.`` and ``(20 points)``.
"""
GROUP = 120
"""Maximum number of characters in the brackets of one part."""

_ROMAN = r"[IVX]{1,5}"
_DIGITS = r"[0-9]{1,4}(?:[.-][0-9]{1,4}){0,3}"
_NUMBER = rf"(?:[A-Z]{{0,2}}[ -]?{_DIGITS}[a-zA-Z]?|{_ROMAN}|[A-Z])(?![0-9a-zA-Z$=])"
_COUNT = "(?:one|two|three|four|five|six|seven|eight|nine|ten)"
_ORDINAL = "(?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth)"
_LABEL = (
    "(?:(?:math|word|bonus|practice) )?"
    "(?:example|problem|task|exercise|question|assignment|variant|prob|ex|eg|q)"
)
_SIGN = r"(?:(?:№|#|No\.)\s{0,2})"
_STOP = r"(?:\s{0,2}[.:,;)\]】、*\u2013\u2014-]){0,3}"
_PARTS = (
    r"[#>*_★☆⭐]{1,8}",  # marks of Markdown and of difficulty
    rf"[【(\[]?(?i:{_LABEL})\.?\s{{0,3}}{_SIGN}?(?:{_NUMBER}|(?<=\s)(?i:{_COUNT})\b){_STOP}"
    r"(?=\W{0,6}(?:[A-Z$\\]|$)|\s{0,3}[(\[【（]|\n)",
    rf"[【(\[]?(?i:{_LABEL}(?: statement)?)\s{{0,2}}(?:[:】\]]|\.(?=\s)){_STOP}",  # no number
    rf"(?i:{_ORDINAL}) (?i:{_LABEL})\b{_STOP}",
    rf"{_SIGN}{_NUMBER}{_STOP}",
    rf"[(\[][0-9]{{1,3}}[)\]]{_STOP}(?=\s{{0,3}}[A-Za-z$\\])",
    rf"(?:[A-Z]{{1,2}}-?)?{_DIGITS}[*']?(?:[.)、](?![0-9])|:(?!\s?[0-9]))\*{{0,2}}",
    r"[A-Z]?[0-9]{1,2}\.[0-9]{1,3}(?=[ *]{1,3}[A-Z])",
    rf"{_ROMAN}[.)、](?=\s)",
    rf"(?i:{_COUNT})\s?[,.、:]?(?=\s{{0,3}}[(\[（][0-9a-zA-Z ]{{0,40}}(?:points|marks))",
)
_PART = re.compile(rf"\s{{0,20}}(?:{'|'.join(_PARTS)})")
_GROUP = re.compile(
    r"\s{0,20}(?:"
    + "|".join(
        rf"{re.escape(a)}([^{re.escape(a + b)}]{{1,{GROUP}}}){re.escape(b)}"
        for a, b in ("()", "[]", "（）", "【】")
    )
    + r")[.:]?"
)
_SCORE = re.compile(
    r"(?:(?:this|the|each) (?:problem|question|task) (?:is worth|has|carries) "
    r"|(?:worth|total(?: of)?|out of|full (?:score|marks?)(?: is)?|max(?:imum)?\.?|score(?: of)?)"
    r":? )?"
    r"(?:[0-9]{1,3}\s?-?(?:points?|pts?|marks?)|(?:points?|marks?):? [0-9]{1,3})"
    r"(?: (?:in total|in all|each|total|maximum))?[.,;]?(?: .*[0-9]{4}.*)?",
    re.IGNORECASE | re.DOTALL,
)
_SAYS = re.compile(r"\b(?:is|are|was|were|be|has|have|had|did|does|will|can|if|when|on)\b")
"""Words of a sentence, which no source has."""
_YEAR = re.compile(r"\b(?:1[89]|20)[0-9]{2}\b")
_NAME = re.compile(r"\b[A-Z][a-zA-Z]{2}")
_TOPIC = re.compile(r"[A-Z][^0-9]{3,}")
_MATHS = re.compile(r"[$\\=^_]")


def without_heading(problem: str) -> str:
    """Returns the problem without its heading (a label, a number, points, a source, a topic in
    square brackets) and without points or a source in brackets at its end; unchanged if there is
    nothing else.
    """
    text = problem.strip()
    for _ in range(PARTS):
        found = _PART.match(text) or _heading_group(text)
        if not found:
            break
        text = text[found.end() :]
    text = _without_tail(text.strip())
    return text if any(map(str.isalnum, text)) else problem


def _heading_group(text: str) -> re.Match[str] | None:
    found = _GROUP.match(text)
    if found is None:
        return None
    inner = _inner(found)
    topic = found[0].lstrip()[0] in "[【" and _TOPIC.fullmatch(inner) and not _MATHS.search(inner)
    return found if topic or _is_note(inner) else None


def _without_tail(text: str) -> str:
    for _ in range(PARTS):
        bare = text.rstrip(" \n.")
        if not bare.endswith((")", "]", "）", "】")):
            return text
        start = max(bare.rfind(mark, max(0, len(bare) - GROUP - 2)) for mark in "([（【")
        found = _GROUP.fullmatch(bare, start) if start > 0 else None
        if found is None or not _is_note(_inner(found)):
            return text
        text = bare[:start].rstrip()
    return text


def _inner(group: re.Match[str]) -> str:
    return next(filter(None, group.groups())).strip()


def _is_note(inner: str) -> bool:
    """Returns whether the content of brackets is about the problem: its points, or its source."""
    if _MATHS.search(inner):
        return False
    source = _YEAR.search(inner) and _NAME.search(inner) and not _SAYS.search(inner)
    return bool(source or _SCORE.fullmatch(inner))
