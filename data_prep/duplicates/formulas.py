"""Extracts a problem's formulas and numbers. They must be equal in two duplicates whose answers
have few possible values.

Two equations in the same sentence ("Is y a function of x: ...") often share the answer "No", or a
small number, without being one problem.
"""

from __future__ import annotations

import re

DISTINCTIVE = 4
"""Minimum length of a canonical answer with a digit, in characters, from which two different
problems with the same words hardly share it by chance. Shorter numbers, words and choices have few
values.
"""

_MATHS = re.compile(r"\$([^$]*)\$")
_PROSE = re.compile(r"[0-9.,;)]\s(?:an?|[a-z]{3,})\b")
_IDLE = re.compile(
    r"\\(?:text|textbf|textit|mathrm|mathbf|operatorname|mbox)\s?\{[^{}]*\}"  # words and units
    r"|\\(?:left|right|big|bigl|bigr|displaystyle|qquad|quad|ldots|dots)(?![a-z])"
    r"|\\[ ,;:!%$]|[{}~&\s]"
)
# What a text must hold for the pattern to be tried, the pattern, and the one spelling.
_SPELLING = (
    ("\\", re.compile(r"\\[()\[\]]"), "$"),
    ("$$", re.compile(r"\$\$"), "$"),
    ("frac", re.compile(r"\\[dtc]frac(?![a-z])"), r"\\frac"),
    ("\\", re.compile(r"\\(?:cdot|times)(?![a-z])"), "*"),
    ("\\leq", re.compile(r"\\leq(?:slant)?(?![a-z])"), r"\\le"),
    ("\\geq", re.compile(r"\\geq(?:slant)?(?![a-z])"), r"\\ge"),
    ("\\neq", re.compile(r"\\neq(?![a-z])"), r"\\ne"),
    (",", re.compile(r"([0-9])(?:\{,\}|,\\!|,)(?=[0-9]{3}(?![0-9]))"), r"\1"),  # thousands
)
_SYMBOLS = str.maketrans(
    {"×": "*", "·": "*", "≤": r"\le", "≥": r"\ge", "≠": r"\ne", "\u2212": "-", "\u2013": "-"}
)
_SAYS = re.compile(r"[0-9=+*/^<>|\\]|^-.")
_NAME = re.compile(
    r"\\(?:alpha|beta|gamma|delta|(?:var)?epsilon|theta|lambda|mu|nu|pi|rho|sigma|tau|(?:var)?phi"
    r"|omega|ell|(?:triangle|angle|overline)[a-z]*)"
)
_ENDS = ".,;:?!()%$'\"*"


def few_valued(answer: str) -> bool:
    """Returns whether a canonical answer has few possible values: a word, a choice, or a number of
    up to DISTINCTIVE - 1 characters.
    """
    return len(answer) < DISTINCTIVE or not any(map(str.isdigit, answer))


def formulas(problem: str) -> list[str]:
    """Returns the formulas and numbers of a problem in one spelling, sorted. Pure; time linear in
    the text.

    A formula of maths mode is one piece without its spaces; outside, each word with a digit or an
    operator is one. Pieces without either, such as a variable, are left out: whether they are in
    maths mode, and how often they are named, depends on the wording.
    """
    text = problem.lower()
    if not text.isascii():
        text = text.translate(_SYMBOLS)
    for needed, pattern, spelled in _SPELLING:
        if needed in text:
            text = pattern.sub(spelled, text)
    if "$" in text:
        text = _MATHS.sub(_joined, text)
    saying = [piece for piece in text.split() if not piece.isalpha() and _SAYS.search(piece)]
    bare = (_IDLE.sub("", piece).strip(_ENDS) for piece in saying)
    return sorted(piece for piece in bare if _SAYS.search(piece) and not _NAME.fullmatch(piece))


def _joined(maths: re.Match[str]) -> str:
    if _PROSE.search(maths[1]):  # two amounts of money with words between them
        return f" {maths[1]} "
    return f" {_IDLE.sub('', maths[1])} "
