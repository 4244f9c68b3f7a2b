"""Tells a value from the units and words around it: ``16 cm^2`` and ``The answer is 16`` are 16.

Works on the strings of ``data_prep.answers.latex.flat``, and does no arithmetic.
"""

from __future__ import annotations

import re

from data_prep.answers.latex import ROMAN, plain, tight

_CONSTANT = "(?<![a-zA-Z])[ei](?![a-zA-Z])"
_FUNCTION = r"d?frac|sqrt|binom|cdot|times|div|pm|mp|pi|infty|log|ln|sin|cos|tan"
_VALUE = re.compile(
    r"(?:[0-9 .+\-*/^_{}()!|]|,(?=[0-9]{3}(?![0-9]))|\[[0-9]\]"
    rf"|\\(?:{_FUNCTION})(?![a-zA-Z])|{_CONSTANT})*"
    rf"(?:(?<=[0-9}})!|])|(?<=[0-9]\.)|(?<=\\pi)|(?<=\\infty)|(?<={_CONSTANT}))"
)
"""Numbers, constants and operators; no letter for an unknown."""
_DEFINITE = re.compile(r"[0-9]|\\(?:pi|infty)(?![a-zA-Z])")

_BEFORE = re.compile(rf"[a-zA-Z{ROMAN}][a-zA-Z{ROMAN} ]*(?:: ?)?")
_TEXT = re.compile(rf"[{ROMAN}]+(?: ?\^ ?[0-9])?")
_INTEGER = re.compile(r"[+-]?[0-9,]+")
_ORDINAL = re.compile(r" ?[-^]? ?(?:(?:st|nd|rd|th)(?![a-zA-Z])|\{ ?(?:st|nd|rd|th) ?\})")
_AROUND = re.compile(
    rf"(?:[ /*.a-zA-ZµΩ{ROMAN}]|(?<=[{ROMAN}])-(?=[{ROMAN}])|\\(?:cdot|times)(?![a-zA-Z])"
    r"|\^ ?(?:-?[0-9]|\{ ?- ?[0-9] ?\}))*"
)
_QUOTIENT = re.compile(
    rf"\\frac ?(?:\{{([^{{}}]*)\}}|([{ROMAN}])) ?(?:\{{([^{{}}]*)\}}|([{ROMAN}]))"
)
_MICRO = re.compile(r"\\mu(?![a-zA-Z]) ?")
_OHM = re.compile(r" ?\\Omega(?![a-zA-Z])")
_NAME = re.compile(rf"(/ ?)?([µΩ]?[{ROMAN}]+Ω?|[a-zA-ZµΩ]+)")
_SPEED = re.compile(r" ?m/s(?:\^2)?")

_PREFIX = "(?:da|[YZEPTGMkhdcmµunpf])"
_SI = (
    r"m|g|s|A|K|mol|cd|Hz|N|Pa|J|W|C|V|F|Ω|S|Wb|T|H|lm|lx|Bq|Gy|Sv|kat|rad|sr"
    r"|[Ll]|t|eV|bar|cal|Wh|ohm|bits?|bps|pc"
)
_OTHER = (
    r"min|h|hrs?|days?|wk|yrs?|mo|secs?|in|ft|yd|mi|lbs?|oz|gal|qt|pt|mph|kph|rpm|psi|ppm|ppb"
    r"|degs?|revs?|sq|cu|units?|u|atm|hp|ha|au|AU|ly|cc|nmi|kn|dB|[kKMGT]B|pts?"
)
_UNIT = re.compile(rf"{_PREFIX}?(?:{_SI})|{_OTHER}")
_EVERYDAY = re.compile(r"[ckm]m|kg|ft|in|mi|sq|hr|lb|Hz|Pa|.*[µΩ].*|.{3,}")
"""Letters in italics that always are a unit and never a product of variables."""
_SPACED = re.compile(r"[mcd][glsm]|oz|yd|[kmMG][ANJWVFLBHC]|[dc]L|eV|Wb|Bq|Gy|Sv|dB")
"""Letters in italics that are a unit after a space: ``5 mg``, but not ``5mg``."""

_VARIABLES = re.compile(r"(?<![a-zA-Z])[a-zA-Z] [a-zA-Z](?![a-zA-Z])")
"""Letters with a space between them: ``h r`` is a product, and no hour."""

# Next to one of these words, a number means another number, or is not a number.
_MEANING = re.compile(
    r"(?<!\\)\b(?:minus|negative|not|no|plus|times|over|and|or|more|less|than|least|most|about"
    r"|mod|base|squared|cubed|factorial|infinity|point|am|pm|bce?|ad|ce|loss|debt|lose|opposite"
    r"|root|square of|cube of|reciprocal|inverse|twice|doubled?|tripled?|multiples?|powers?"
    r"|except|without|below|above|under|between|until|up|undefined|decreas\w{1,4}|diverges?"
    r"|tens|score|gross|lakh|crore|onwards?"
    r"|half|halves|(?:third|quarter|fourth|fifth|sixth|seventh|eighth|ninth|tenth)s"
    r"|(?:hundred|thousand)ths|(?:dozen|hundred|thousand|[a-z]*illion)s?"
    r"|zero|one|two|three|four|five|six|seven|eight|nine|ten"
    r"|(?:sqrt|max|sin|cos|tan|log|ln|exp)[xyz]?|alpha|beta|gamma|theta)\b",
    re.IGNORECASE,
)


def value(text: str) -> str | None:
    """Returns the value in ``text`` without the words before it, and the unit or words after it;
    None if there is none, or if there is more than that.

    A unit is made of SI units with their prefixes and of usual others, as products, quotients and
    powers. In italics, where a letter is a variable, it must be one that is not a product of
    variables (``16 cm``, but neither ``16 m`` nor ``3x``). Words have at least four letters in
    italics, three in text. An ordinal (``12th``) is its number.
    """
    before = _BEFORE.match(text)
    start = before.end() if before and _are_words(before[0]) else 0
    found = _VALUE.match(text, start)
    if found is None or not _DEFINITE.search(found[0]):
        return None
    number = found[0].strip(" ").rstrip(". ")
    if number[0] == "{" and number.find("}") == len(number) - 1:
        number = number[1:-1]
    after = text[found.end() :]
    if "\\" in after:
        after = _MICRO.sub("µ", _OHM.sub("Ω", after))
        after = _QUOTIENT.sub(lambda m: f" {m[1] or m[2]}/{m[3] or m[4]}", after)
    if _INTEGER.fullmatch(number) and (ordinal := _ORDINAL.match(plain(after))):
        after = after[ordinal.end() :]
    return number if _names_things(after) else None


def is_arithmetic(side: str) -> bool:
    """Returns whether a side of an equation holds only numbers, operators and text."""
    numbers = _TEXT.sub(" ", side).strip(" ")
    if not _DEFINITE.search(numbers) or changes_meaning(plain(side)):
        return False
    return _VALUE.fullmatch(numbers) is not None


def changes_meaning(words: str) -> bool:
    """Returns whether one of these words changes the number next to it."""
    return _MEANING.search(words) is not None


def _are_words(before: str) -> bool:
    shown = plain(before)
    words = shown.rstrip(": ").split(" ")
    separate = shown[-1] in ": " or not before[-1].isascii()
    return separate and (len(words[0]) > 2 or len(words) > 1) and not changes_meaning(shown)


def _names_things(after: str) -> bool:
    shown = plain(after)
    if not shown.strip(" "):
        return True
    if not _AROUND.fullmatch(after) or changes_meaning(shown):
        return False
    if after == shown:  # in italics: spaces mean nothing, but for the one after the value
        if _VARIABLES.search(after):
            return False
        after = " " * (after[0] == " ") + tight(after)
    glued, units, words, variables = after[0] != " ", 0, 0, 0
    for place, (over, name) in enumerate(_NAME.findall(after)):
        spelled, is_roman = plain(name), plain(name) != name
        is_unit = _UNIT.fullmatch(spelled) is not None
        is_glued = glued and place == 0
        if is_unit and (
            is_roman
            or _EVERYDAY.fullmatch(spelled)
            or (not is_glued and _SPACED.fullmatch(spelled))
        ):
            units += 1
        elif is_unit:
            variables += 1
        elif (
            len(spelled) >= _shortest(place, over, is_roman) or (words and spelled in ("per", "of"))
        ) and (is_roman or not is_glued):
            words += 1
        else:
            return False
    if variables:
        return (units > 0 and not words) or _SPEED.fullmatch(after) is not None
    return units + words > 0


def _shortest(place: int, over: str, is_roman: bool) -> int:
    """Returns the minimum number of letters of a word at this place after a number or a slash."""
    if is_roman:
        return 2 if place else 3
    return 3 if over else 4
