"""Spells answers so that two of them are the same when their spellings are equal."""

from __future__ import annotations

import re
from functools import lru_cache

from data_prep.answers.latex import ROMAN, flat, plain, tight
from data_prep.answers.quantity import changes_meaning, is_arithmetic, value

LONGEST = 1000
"""Maximum length of an answer that is normalised, in characters; a longer one equals only itself.
"""
ROUNDS = 4
"""Maximum number of passes of the rules. One is enough for all but contrived answers, such as a
choice after a name and a membership sign.
"""
CACHED = 4096
"""Size of the cache of spellings: a problem's gold answer is compared with every rollout's."""

_PLAIN = re.compile(r"-?[1-9][0-9]{0,99}|0")
_NUMBER = re.compile(
    r"(?P<sign>[+-]?) ?(?:"
    r"(?=\.?[0-9])(?P<whole>[0-9]{1,3}(?:[, ][0-9]{3})+|[0-9]*)(?:\.(?P<decimals>[0-9]*))?"
    r"|\\frac ?(?:(?P<over>[0-9])|\{(?P<minus>-?) ?(?P<longer>[0-9]+)\})"
    r" ?(?:(?P<under>[0-9])|\{(?P<deeper>[0-9]+)\}))"
)
_GREEK = (
    r"\\(?:alpha|beta|[Gg]amma|[Dd]elta|(?:var)?epsilon|zeta|eta|[Tt]heta|kappa|[Ll]ambda|mu|nu|xi"
    r"|pi|rho|[Ss]igma|tau|(?:var)?phi|Phi|chi|psi|[Oo]mega)"
)
_LETTER = rf"(?:[a-zA-Z{ROMAN}]|{_GREEK}(?![a-zA-Z]))"
_INDEX = r"(?:_ ?(?:[a-zA-Z0-9]|\{[^{}=]*\}))?'*(?:\^\{-1\})?"
_MEMBER = re.compile(
    rf"{_LETTER} ?{_INDEX} ?(?:\([a-zA-Z0-9]\) ?)?\\in(?![a-zA-Z]) ?(?=.)"
    r"(?!.*(?:[=<>]|\\(?:in|le|ge|ne|notin)(?![a-zA-Z])))"
)
"""A name before a set, if the text says nothing else about it."""
_POINTS = r"\|[A-Z]{1,2}\||\[[A-Z]{3,5}\]|m?\\(?:angle|triangle|overline|widehat) ?\{?[A-Z]{1,3}\}?"
_OF = r"\((?:-?[0-9]+|[a-zA-Z0-9]+(?:,[a-zA-Z0-9]+)*)\)"
_ASKED = re.compile(
    rf"(?:(?:[a-zA-Z]|[A-Z]{{2,4}}|{_GREEK}|{_POINTS}){_INDEX}(?:{_OF})?"
    r"|[a-w](?:\+[a-w])+|[a-zA-Z]{2,}(?: [a-zA-Z]+)*):?"
)
"""A name for the number that is asked for: a letter, points, a sum or product of letters, words."""
_WORD = re.compile(rf"[{ROMAN} ]{{2,}}")

_CHOICE = re.compile(
    r"(?P<lead>(?:[Tt]he )?(?:[a-z]+ )?(?:[Aa]nswer|[Cc]hoice|[Oo]ption)(?: is)?:? ?)?"
    r"(?:\( ?(?P<inside>[A-Z]) ?\)|(?P<alone>[A-J])(?= ?[:.)]|$))(?P<between>[:.) ]*)(?P<after>.*)",
    re.DOTALL,
)
_TEXT_AFTER = re.compile(rf"-?[0-9]|[{ROMAN}]|[a-zA-Z]{{3}}")
_MATHS_AFTER = re.compile(
    r"[,;/&+=<>^_*|:!]|- |[A-Z]$"
    r"|\\(?:cup|cap|times|cdot|in|to|le|ge|ne|pm|approx|equiv|subset|subseteq|setminus)(?![a-zA-Z])"
)
_OTHER_CHOICE = re.compile(
    r"\( ?[A-Z] ?\)|\b[A-J][:.)]|^(?:or|and|nor|to)\b|\b(?:or|and|nor) [A-J]\b"
)


def normalise(answer: str) -> str:
    r"""Returns the canonical spelling of an answer; two answers are the same when their spellings
    are equal.

    In order:

    1. An answer of more than ``LONGEST`` characters only loses its surrounding spaces.
    2. Unicode signs become commands (``π`` ``\pi``, ``x²`` ``x^2``), ``\text{..}``,
       ``\mathrm{..}`` and the like their content, any minus sign ``-``, and of several commands
       for the same sign one remains (``\dfrac`` and ``\frac``, ``\leq`` and ``\le``).
    3. Sizes (``\left``), degree signs, currencies, percent signs, maths delimiters, trailing
       periods, and a box or braces around the whole are removed, and so are braces around one
       character (``x^{2}`` is ``x^2``, but ``x^{12}`` is not ``x^12``). ``\\`` ends a matrix's row,
       with or without a space.
    4. A choice with its text is the choice: ``(C) Plane``, ``C: 24`` and ``(C)`` are ``C``, unless
       another choice is named.
    5. A name before ``\in`` says what is asked and is removed (``x \in [0,1]``).
    6. A number with a unit or words is the number (see ``data_prep.answers.quantity.value``),
       unless a word changes it (``16 million``, ``16 or more``, ``minus 16``).
    7. Of a chain of equations the last side counts, if it holds no unknown, as in ``m + n = 25 +
       169 = 194``. The first side may be a name that says what is asked: a letter (``x``, ``a_1``,
       ``f(2)``), points (``AB``), a product of letters, a sum of letters before x (``m + n``), or
       words.
       Every other side must be arithmetic. A name goes before a list of values too (``x = 1, 2``).
       So ``x + 2y = 0``, ``x + y = 3``, ``y = 3x + 1``,
       ``a = 1 = b`` and ``x = 1, y = 2`` stay equations.
    8. A number loses a leading ``+``, thousands commas, leading zeros and trailing zeros of its
       decimals (``016``, ``16.0``, ``+16`` and ``16`` are the same, and so are ``.5`` and ``0.50``;
       ``-0`` is ``0``). A fraction of integers is written ``a/b``.
    9. Spaces are removed, except between two numbers (``12 345`` is one number, ``12 34`` are two),
       two words, or a command and a letter.

    No arithmetic is done: ``0.5`` and ``\frac{1}{2}`` stay different (math-verify compares
    values).
    """
    answer = answer.strip()
    if _PLAIN.fullmatch(answer) or len(answer) > LONGEST:
        return answer
    return _canonical(answer)


@lru_cache(CACHED)
def _canonical(answer: str) -> str:
    for _ in range(ROUNDS):
        answer, before = _spelled(answer), answer
        if answer == before:
            break
    return answer


def _spelled(answer: str) -> str:
    text = flat(answer)
    if choice := _choice(text):
        return choice
    if r"\in" in text and (member := _MEMBER.match(text)):
        text = text[member.end() :]
    text = plain(_last_value(text) or _listed(text)).lstrip("+ ")
    if number := _NUMBER.fullmatch(text):
        return _spell(number)
    spelled = tight(text)
    if (number := _NUMBER.fullmatch(spelled)) is None:
        # The product in "2 k m" would become a unit without its spaces.
        return spelled if _last_value(spelled) in (None, spelled) else text
    return text if "," in spelled else _spell(number)  # 1, 234 are two numbers


def _last_value(text: str) -> str | None:
    """Returns the value of an answer or of a chain of equations; None if it has no single value."""
    *sides, last = text.split("=")
    if sides and not _is_asked(sides[0]) and not is_arithmetic(sides[0]):
        return None
    if not all(map(is_arithmetic, sides[1:])):
        return None
    return value(last.strip(" ").removeprefix(r"\boxed"))


def _listed(text: str) -> str:
    """Returns the text without the name before a list of values (``x = 1, -2``)."""
    name, equals, values = text.partition("=")
    parts = values.split(",")
    if equals and len(parts) > 1 and _is_asked(name) and all(value(p.strip(" ")) for p in parts):
        return values.strip(" ")
    return text


def _is_asked(side: str) -> bool:
    shown = tight(side)
    if not shown:
        return True
    is_name = _ASKED.fullmatch(shown) or _WORD.fullmatch(side)
    are_words = shown.rstrip(":").replace(" ", "").isalpha()
    return is_name is not None and not (are_words and changes_meaning(shown))


def _choice(text: str) -> str | None:
    """Returns the letter of an answer that names one choice."""
    found = _CHOICE.match(plain(text))
    if found is None:
        return None
    kind = "inside" if found["inside"] else "alone"
    letter, after = found[kind], found["after"]
    if not after:
        return letter
    if letter > "J" or _OTHER_CHOICE.search(after) or _MATHS_AFTER.match(after):
        return None
    if not text[found.start(kind)].isascii():
        return letter
    begins = _TEXT_AFTER.match(text, found.start("after"))
    return letter if begins and " " in found["between"] else None


def _spell(number: re.Match[str]) -> str:
    if over := number["over"] or number["longer"]:
        sign = "-" if (number["sign"] == "-") != (number["minus"] == "-") else ""
        return f"{sign}{over}/{number['under'] or number['deeper']}"
    whole = (number["whole"] or "").replace(",", "").replace(" ", "").lstrip("0")
    decimals = (number["decimals"] or "").rstrip("0")
    sign = "-" if number["sign"] == "-" and (whole or decimals) else ""
    return f"{sign}{whole or '0'}{'.' + decimals if decimals else ''}"
