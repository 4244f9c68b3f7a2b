"""What must be equal in two similar problems whose answers say little: their formulas and numbers.

Two equations put into one sentence ("Is y a function of x: ...") often share the answer "No", or a
small number; that does not make them one problem.
"""

from __future__ import annotations

import re

DISTINCTIVE = 4
"""Least characters of a canonical answer, one of them a digit, that two different problems with the
same words hardly share by chance. Shorter numbers, words and choices have few values.
"""

_MARK = re.compile(r"\\[()\[\]]|\$\$")
_MATHS = re.compile(r"\$([^$]*)\$")
_PROSE = re.compile(r"(?<![\\a-z])[a-z]{3,} [a-z]{2,}")
_IDLE = re.compile(
    r"\\(?:text|textbf|textit|mathrm|mathbf|operatorname|mbox)\s?\{[^{}]*\}"  # words and units
    r"|\\(?:left|right|big|bigl|bigr|displaystyle|qquad|quad|ldots|dots)(?![a-z])"
    r"|\\[ ,;:!%$]|[{}~&\s]"
)
_SPELLING = (
    (re.compile(r"\\[dtc]frac(?![a-z])"), r"\\frac"),
    (re.compile(r"\\(?:cdot|times)(?![a-z])|×|·"), "*"),
    (re.compile(r"\\leq(?:slant)?(?![a-z])|≤"), r"\\le"),
    (re.compile(r"\\geq(?:slant)?(?![a-z])|≥"), r"\\ge"),
    (re.compile(r"\\neq(?![a-z])|≠"), r"\\ne"),
    (re.compile("[\u2212\u2013]"), "-"),
    (re.compile(r"(?<=[0-9])(?:\{,\}|,\\!|,)(?=[0-9]{3}(?![0-9]))"), ""),  # thousands
)
_SAYS = re.compile(r"[0-9=+*/^<>|\\]|^-.")
_NAME = re.compile(
    r"\\(?:alpha|beta|gamma|delta|(?:var)?epsilon|theta|lambda|mu|nu|pi|rho|sigma|tau|(?:var)?phi"
    r"|omega|ell|(?:triangle|angle|overline)[a-z]*)"
)
_ENDS = ".,;:?!()%'\"*"


def few_valued(answer: str) -> bool:
    """Returns whether a canonical answer is one of few that such problems have: a word, a choice, a
    number of up to DISTINCTIVE - 1 characters.
    """
    return len(answer) < DISTINCTIVE or not any(map(str.isdigit, answer))


def formulas(problem: str) -> list[str]:
    """Returns the formulas and numbers of a problem in one spelling, sorted. Pure; time linear in
    the text.

    A formula of maths mode is one piece without its spaces; outside, each word with a digit or an
    operator is one. Pieces without either, such as a variable, are left out: whether they are in
    maths mode, and how often they are named, depends on the wording.
    """
    text = _MARK.sub("$", problem.lower())
    for pattern, spelled in _SPELLING:
        text = pattern.sub(spelled, text)
    bare = (_IDLE.sub("", piece).strip(_ENDS) for piece in _MATHS.sub(_joined, text).split())
    return sorted(piece for piece in bare if _SAYS.search(piece) and not _NAME.fullmatch(piece))


def _joined(maths: re.Match[str]) -> str:
    if _PROSE.search(maths[1]):  # two amounts of money with words between them
        return f" {maths[1]} "
    return f" {_IDLE.sub('', maths[1])} "
