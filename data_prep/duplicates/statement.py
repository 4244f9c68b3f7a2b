r"""Removes from a problem what is not its statement: heading, options, and how to write the answer.

Compilations of one contest differ in these. "Find the area." in one is "The area can be written as
$m\sqrt n$, where $m$ and $n$ are positive integers. What is $m+n$?" in another, and has options in
a third.

A sentence loses its tail from the first of these on:

- what to do with the answer: "Express your answer as ...", "The answer is an integer; ...";
- the form of a quantity, "can be written as ..." or "is $m/n$, where m and n are coprime", if the
  letters in it are then asked for or are in lowest terms;
- a tail such as "to the nearest tenth".

Sentences right after it that ask for these letters ("Find $m+n$.") go with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from data_prep.duplicates.headings import without_heading
from data_prep.duplicates.normalise_text import is_symbol, words

_OPTIONS = [
    re.compile(rf"(?<![\w)])\({letter}\)|^[ \t]*{letter}[.):]\s", re.MULTILINE) for letter in "ABC"
]
_SENTENCE_END = re.compile(r"(?<=[.?!])(?:\\[)\]]|[$)\]}\"'])*(?=\s|[a-z]|\Z)")

_ANSWER = (
    r"(?:(?:your|the|a|all|any|each|its|only|final|exact|numerical|simplified)\s+){0,3}answers?\b"
)
_DO = (
    r"(?:express|giv|writ|enter|leav|report|stat|provid|round|submit|format|put|present|return"
    r"|simplify|reduc|box|specify|convert|typ|record|mark)(?:e|es|ing)?"
)
_ABOUT_ANSWER = re.compile(
    rf"\b(?:please\s+)?{_DO}\s+{_ANSWER}"
    # "The answer is of the form", "If your final answer is m/n", "Let the answer be".
    r"|\b(?:(?:if|let|given\s+that|suppose)\s+)?(?:the|your)\s+"
    r"(?:(?:final|original|exact|correct|required|simplified|numerical)\s+){0,2}answers?\s+"
    r"(?:to\s+\w+\s+\w+\s+)?(?:is|are|be|can|may|could|must|should|will|has|takes)\b"
    r"|\byour\s+(?:final\s+)?(?:solution|result)\s+(?:can|may|must|should|will)\b"
)
_INSTRUCTION = re.compile(
    r"[(\s]*(?:please\s+)?(?:answer\s+(?:with|as|in|to|using|by)\b"
    r"|enter\s+(?:your|the|all|only|an?|as)\b"
    r"|round\s+(?:(?:up|down|off|(?:the\s+|your\s+|all\s+)?(?:results?|values?|it))\s+)?to\b)"
)
_WRITTEN = re.compile(
    r"\b(?:can|may|could|must)\s+(?:then\s+|also\s+|always\s+)?be\s+(?:uniquely\s+)?"
    r"(?:written|expressed|represented|simplified|reduced)(?:\s+uniquely)?\s+(?:as|in|to|by)\b"
)
_TAIL = re.compile(
    r"\b(?:to\s+the\s+nearest|(?:rounded|correct|accurate)\s+(?:off\s+)?to|in\s+simplest"
    r"|as\s+an?\s+(?:common|simplified|reduced|mixed|improper))\b[\w\s-]{0,30}[.?!)\]$\\]*\s*\Z"
)
_FORMATS = re.compile(r"\s*(?:round|express|write|convert|simplify|give|reduce|change)\b")
_LOWEST = re.compile(
    r"\b(?:relatively\s+prime|co-?prime|lowest\s+terms|(?:simplest|reduced|lowest)\s+(?:form|terms)"
    r"|square-?\s?free|(?:in|as\s+a)\s+simplified|irreducible"
    r"|(?:divisible|divided)\s+by\s+the\s+square|gcd|greatest\s+common\s+divisor)\b"
)
_NUMBERS = re.compile(r"\b(?:integers?|primes?|natural\s+numbers?)\b")
_KIND = re.compile(f"{_LOWEST.pattern}|{_NUMBERS.pattern}")
_CLAUSE = re.compile(r"\b(?:where|for|with|such\s+that)\b")
_IN_LOWEST = re.compile(r"\bin\s+(?:its\s+|the\s+)?(?:lowest|simplest|reduced)\s+(?:terms|form)\b")
_IS = re.compile(r"\b(?:is|are|equals|has|be|equal\s+to)\b|=")
_ASK = (
    r"(?:(?:then|hence|so|please|and|now)\b,?\s{0,9}){0,4}"
    r"(?:find|what\s+is|what's|compute|determine|calculate|evaluate|give|enter|report|submit"
    r"|state|provide|return)\b"
)
_STARTS_ASKING = re.compile(rf"[(\s]*{_ASK}")
_GOES_ON_ASKING = re.compile(rf"[,;]\s*{_ASK}")
_OF_NUMBERS = {
    "positive",
    "nonzero",
    "distinct",
    "being",
    "both",
    "relatively",
    "not",
    "are",
    "and",
}
_OF_VALUES = {
    *(
        "the",
        "and",
        "value",
        "values",
        "sum",
        "product",
        "quantity",
        "remainder",
        "when",
        "divided",
    ),
    *("ordered", "pair", "triple", "square", "root", "number", "smallest", "possible"),
}
_TRIGGERS = (
    *("answer", "integer", "prime", "lowest", "simplest", "reduced", "written", "expressed"),
    *("round", "enter", "solution", "represented", "simplified", "nearest", "natural", "fraction"),
    *("gcd", "greatest", "mixed"),
)
"""Nearly every text with a form has one of these: looking for them first saves time."""
_NEAR_BY = 80
"""Maximum number of characters in which a clause says of what kind its letters are, or in which a
formula precedes it.
"""
_LONGEST_ASK = 120
"""Maximum length of a sentence that only asks for letters, in characters."""


def bare_words(text: str) -> list[str]:
    """Returns the words of a problem without its heading, its options and the form of its answer;
    none if it has none of these or no other words. Pure; time linear in the text.
    """
    bare = without_heading(text)
    left = bare[: _options(bare)].lower()
    if any(trigger in left for trigger in _TRIGGERS):
        left = _without_form(left)
    return words(left) if len(left) < len(text.strip()) else []


def _options(text: str) -> int:
    """Returns where the options of a multiple-choice problem begin; the problem's length if it has
    none.
    """
    if not any(third in text for third in ("C)", "C.", "C:")):
        return len(text)
    first = start = 0
    for option in _OPTIONS:
        if (found := option.search(text, start)) is None:
            return len(text)
        first, start = first or found.start(), found.end()
    return first


def _without_form(text: str) -> str:
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    sentences = [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True)]
    asked = [_asked(_STARTS_ASKING.match(sentence), sentence) for sentence in sentences]
    kept, formed = [], False
    for sentence, now, then in zip(sentences, asked, [*asked[1:], 0], strict=True):
        if formed and (now or not sentence.strip()):
            continue
        cut = _form(sentence, then)
        formed = cut < len(sentence)
        kept += [sentence[:cut], " "] if formed else [sentence]
    return "".join(kept)


def _form(sentence: str, asked: int) -> int:
    """Returns where the form of the answer begins in a sentence, the sentence's length if it has
    none; ``asked`` is the number of letters that the next sentence asks for.
    """
    if _INSTRUCTION.match(sentence):
        return 0
    cuts = [len(sentence)]
    if about := _ABOUT_ANSWER.search(sentence):
        cuts.append(about.start())
    if (tail := _TAIL.search(sentence)) and not _FORMATS.match(sentence):
        cuts.append(tail.start())
    asked = asked or _asked(_last(_GOES_ON_ASKING, sentence), sentence)
    written = _last(_WRITTEN, sentence)
    if written and (asked or _LOWEST.search(sentence, written.end())):
        cuts.append(written.start())
    elif asked:
        cuts += [_formula(sentence, clause) for clause in _clauses(sentence, asked)]
    return min(cuts)


def _last(pattern: re.Pattern[str], sentence: str) -> re.Match[str] | None:
    *_, last = [None, *pattern.finditer(sentence)]
    return last


def _asked(start: re.Match[str] | None, sentence: str) -> int:
    """Returns how many letters the sentence asks for from the end of ``start`` on: 2 in "find
    m + n", 0 if it asks for anything else.
    """
    if start is None or len(sentence) - start.end() > _LONGEST_ASK:
        return 0
    asked = words(sentence[start.end() :])
    if not all(is_symbol(word) or word in _OF_VALUES for word in asked):
        return 0
    letters = [w for w in asked if w.isalpha() and len(w) <= 2 and w not in ("of", "is", "by")]
    return len("".join(letters))


def _clauses(sentence: str, asked: int) -> Iterator[int]:
    """Yields where clauses such as "where m and n are relatively prime positive integers" begin."""
    yield from (match.start() for match in _IN_LOWEST.finditer(sentence))
    for clause in _CLAUSE.finditer(sentence):
        near = sentence[clause.end() : clause.end() + _NEAR_BY]
        kind = _KIND.search(near)
        if kind is None or not (_LOWEST.search(near) or (clause[0] == "where" and asked > 1)):
            continue
        if all(is_symbol(word) or word in _OF_NUMBERS for word in words(near[: kind.start()])):
            yield clause.start()


def _formula(sentence: str, clause: int) -> int:
    """Returns where the formula before a clause begins: " is m/n" in "is m/n, where m and n"."""
    start = max(0, clause - _NEAR_BY)
    *_, last = [None, *_IS.finditer(sentence, start, clause)]
    if last is None:
        return clause
    between = words(sentence[last.end() : clause])
    symbols = sum(map(is_symbol, between))
    return last.start() if symbols and len(between) <= symbols + 1 else clause  # "is m/n miles"
