"""Problems that cannot be trained on as questions with an answer: they need a picture, ask for a
proof, or hold their own solution. Each function returns where the fault is, as a character's
position, or None.
"""

from __future__ import annotations

import re

from data_prep.answers.boxed import is_exact, last_box

ANSWERS = 20
"""Maximum number of stated answers that are compared with the row's answer."""
STATED = 200
"""Maximum length of a stated answer, in characters."""

_PICTURE = re.compile(
    r"!\[[^\]\n]{0,200}\]\s?\(|!\[\]\[|\\includegraphics|<img\b|<image"
    r"|\[img\b|\[(?:image|picture|figure|diagram)(?: [^\]\n]{0,40})?\]|data:image/"
    r"|https?://\S{1,300}?\.(?:png|jpe?g|gif|svg|webp|bmp)\b|\bcdn\.mathpix\.com|\bimgur\.com",
    re.IGNORECASE,
)
_DRAWING = re.compile(
    r"\[asy\]|\\begin\s?\{(?:tikzpicture|pspicture|picture|tabular|array|asy|table|[pb]?matrix)"
    r"|\\draw\b|<svg|<table|\\hline|^\s{0,8}\|",
    re.IGNORECASE | re.MULTILINE,
)
_SEEN = "(?:figure|diagram|illustration)"
_SHOWN = "(?:picture|drawing|sketch|image|photo|graph|figure|diagram|illustration)"
_SHAPE = (
    "(?:triangle|quadrilateral|square|rectangle|trapezoid|trapezium|parallelogram|rhombus|pentagon"
    "|hexagon|octagon|polygon|circle|semicircle|cube|solid|pyramid|cone|cylinder|prism|grid|region"
    "|curve|map|chart|spinner|shape)s?"
)
_PLACE = (
    "(?:(?:below|above)(?! the| of)|shown|here|at (?:the )?(?:right|left)"
    "|(?:on|to) the (?:right|left))"
)
_POINTS_AT = re.compile(  # in small letters
    rf"\b(?:in|on|by|from|see|as|to) the (?:\w{{1,12}} )?{_SEEN}"
    r"(?:[,.;:)?]|\s?\$|$)"
    r"|\b(?:shown|seen|given|drawn|marked|illustrated|depicted|indicated|as) (?:in|on|by)"
    rf" the (?:\w{{1,12}} )?(?:{_SEEN}|picture|drawing|sketch)\b"
    rf"|\b(?:following|accompanying|adjoining|adjacent|attached) (?:{_SEEN}|picture|drawing)\b"
    rf"|\b{_SHOWN} {_PLACE}\b(?! (?:wall|side|to|by|that|\$))"
    rf"|\b{_SHAPE} (?:(?:is|are) shown(?: {_PLACE})?[,.;?]|shown\b(?! (?:to|by|that|in|between)))"
    rf"|\b{_SHOWN}(?: of [^.?!\n]{{1,60}})? (?:is|are) shown\b(?! (?:to|by|that))"
    rf"|\b(?:the|this) {_SEEN} (?:shows|illustrates|depicts)\b"
    rf"|\bsee the {_SHOWN}\b|\b(?:in|see|from) fig(?:ure|\.)?\s?\(?[0-9]|\((?:see )?fig(?:ure|\.)"
    rf"|\b(?:see|as) fig(?:ure|\.)|\bpictured (?:{_PLACE})\b|\bas pictured\b",
)
_LETTERED = re.compile(
    rf"\b(?:[Ii]n|[Oo]n|[Bb]y|[Ff]rom|[Ss]ee|[Aa]s) the (?:\w{{1,12}} )?{_SEEN} [A-Z]{{2}}"
)
"""As in "in the figure AB = 4"."""
_NUMBERED = re.compile(r"\bfig(?:ure|\.)?\s?([0-9]{1,4})", re.IGNORECASE)
_SEQUENCE = 3
"""Minimum number of numbered figures in a pattern that the problem describes ("Figure 3 has 10
sticks").
"""
_PROVE = re.compile(
    r"\bprove\b|\b(?:show|demonstrate|verify|justify|establish)(?:,[^,.]{0,60})?,? that\b"
    r"|\b(?:show|demonstrate|establish)"
    r"(?::| the (?:identity|inequality|following|formula)\b| [$\\])"
    r"|\b(?:give|write|provide) (?:a|the) (?:\w{1,12} )?proof\b",
    re.IGNORECASE,
)
_ASKS = re.compile(  # in small letters
    r"\b(?<!can )(?<!could )(?<!cannot )(?<!possible to )(?<!able to )"
    r"(?:find|determine|compute|calculate|evaluate|solve|express|list|name|simplify)\b"
    r"|\bhow (?:many|much|long|far|often|old|large|big|tall|fast)\b"
    r"|\bwhat (?:is|are|was|were|will|can|does|do|must|should|would|values?|number)\b"
    r"|\b(?:for )?which (?:of|is|are|\$)|\bfor (?:what|which)\b|\bwhen (?:does|is|do)\b"
    r"|\b(?:and|hence|then|also|thus)\b[^.?!]{0,40}?\b(?:give|state|deduce|factori[sz]e|factor|decide"
    r"|estimate|write|describe|identify)\b|\bor disprove\b|\bdisprove\b|__",
)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s")
_SOLUTION = re.compile(
    r"(?:^|\n)\s{0,8}(?:\*{2}|\\textbf\{)?(?:Solution|SOLUTION)(?:\s[0-9IVX]{1,3})?"
    r"(?:\*{2}|[.:}]|\s{0,4}\n)"
    r"|(?:#{1,6}\s{0,3}|\*{2})\s{0,2}(?:Solution|SOLUTION)\b"
    r"|[.?!:$)\]]\s{1,4}(?:Solution|SOLUTION)[.:]\s|[\[【](?:Solution|SOLUTION)[\]】]"
)
_ANSWER = re.compile(
    r"(?:^|[.?!:;)$\]}*\n])[\s*#>(\[]{0,12}(?:so |thus |hence |therefore,? )?(?:the )?"
    r"(?:(?:correct|final|right) )?ans(?:wer)?(?:\s{0,3}(?:is\b|[:=.\]】*])|\s?\n)",
    re.IGNORECASE,
)
_CHOICE = re.compile(r"[A-Z]")


# Parts of which each text that a pattern matches has one, in small letters: finding that there is
# none is much faster than the pattern.
_OF_PICTURES = (
    *("![", "\\includegraphics", "<im", "[img", "data:image", "http", "mathpix", "imgur", "fig"),
    *("pictur", "drawing", "sketch", "photo", "graph", "diagram", "illustration", "image", "shown"),
)
_OF_PROOFS = ("prove", "show", "demonstrate", "verify", "justify", "establish", "proof")
_OF_SOLUTIONS = ("solution", "\\boxed", "ans")


def needs_picture(problem: str) -> int | None:
    """Returns where a problem has a picture, or refers to one that it includes neither as code nor
    as a table.
    """
    if not _has_any(_OF_PICTURES, problem):
        return None
    if found := _PICTURE.search(problem):
        return found.start()
    found = _POINTS_AT.search(problem.lower()) or _LETTERED.search(problem)
    if found is None or _DRAWING.search(problem):
        return None
    return None if len(set(_NUMBERED.findall(problem))) >= _SEQUENCE else found.start()


def asks_for_proof(problem: str) -> int | None:
    """Returns where a problem asks for a proof, unless it asks for a value too."""
    found = _PROVE.search(problem) if _has_any(_OF_PROOFS, problem) else None
    if found is None or _ASKS.search(problem.lower()):
        return None
    sentences = _SENTENCE_END.split(problem)
    asked = any(said.endswith("?") and not _PROVE.search(said) for said in sentences)
    return None if asked else found.start()


def holds_solution(problem: str, answer: str) -> int | None:
    """Returns where a problem contains the heading of a solution, or its answer in a box or stated
    as the answer.
    """
    if not _has_any(_OF_SOLUTIONS, problem):
        return None
    if found := _SOLUTION.search(problem):
        return found.start()
    if problem.rstrip(" .$*\n").endswith("}") and is_exact(last_box(problem)[0], answer):
        return problem.rfind("\\boxed")
    if _CHOICE.fullmatch(answer):  # "Answer: A. 3, B. 4" lists the choices
        return None
    for found in list(_ANSWER.finditer(problem))[-ANSWERS:]:
        line = problem[found.end() : found.end() + STATED].partition("\n")[0].lstrip(" *:.=]】")
        stated = (line, line.partition(". ")[0])
        if any(is_exact(said.rstrip(" *.)]】"), answer) for said in stated):
            return found.start()
    return None


def _has_any(parts: tuple[str, ...], problem: str) -> bool:
    return any(map(problem.lower().__contains__, parts))
