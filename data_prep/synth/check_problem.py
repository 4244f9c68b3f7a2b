"""The filters that examine a single generated problem: structure, answer range, solution quality,
AI detection, and math verification; in this order, each with its reasons in the funnel.

The bounds are set on GSM8K's own training rows: apart from those without an annotation, all but one
in a thousand pass structure, quality and AI detection.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from data_prep.duplicates.normalise_text import words
from data_prep.synth import check_arithmetic

LARGEST = 225_000
"""Largest answer of the published dataset."""
FEWEST_WORDS = 8
"""Minimum number of words of a problem; GSM8K's shortest has 9."""
LONGEST_PROBLEM = 1_500
"""Maximum number of characters of a problem; GSM8K's longest has 985."""
LONGEST_SOLUTION = 2_000
"""Maximum number of characters of a solution, annotations included; GSM8K's longest has 1,228."""
MOST_STEPS = 15
"""Maximum number of annotations of a solution; GSM8K has at most 11."""
SAID_WITHOUT_NUMBERS = 3
"""Minimum number of words of a solution, not counting numbers: fewer explain nothing."""
REPEATED = 3
"""Number of occurrences from which a line counts as repeated."""

_ASKS = re.compile(
    r"\b(?:how|what|which|find|calculate|determine|compute|express)\b", re.IGNORECASE
)
_TAG = re.compile(r"</?[a-z_]+>|####", re.IGNORECASE)
_SELF = re.compile(
    r"\bas an? (?:ai|artificial|language|assistant)\b|\b(?:ai|language) (?:model|assistant)\b"
    r"|\bi(?:'m| am) (?:unable|sorry|not able|an ai)\b|\bi (?:cannot|can't|can not|apologi[sz]e)\b"
    r"|\b(?:anthropic|openai|chatgpt|qwen)\b",
    re.IGNORECASE,
)
_BOILERPLATE = re.compile(
    r"(?:^|[.!?] )(?:certainly|of course|absolutely|great question|sure)[!,]"
    r"|(?:^|[.!?] )(?:wait|hmm|oops)\b[,.!…—-]"
    r"|\bhere(?:'s| is| are) (?:a|an|the|your|another|\w+ new)"
    r"[ \w-]{0,40}(?:problem|question|solution|example|answer)"
    r"|\blet me (?:know|re\w+|try|correct|fix|verify|check|adjust)\b"
    r"|\bhope (?:this|that) helps\b|\bfeel free\b"
    r"|\blet's (?:break|dive|tackle|work through)\b|\b(?:grade[- ]school|word problem)\b"
    r"|\bi made an? (?:mistake|error)",
    re.IGNORECASE | re.MULTILINE,
)
_MARKUP = re.compile(
    r"\*\*|^#{1,6} |```|\\\(|\\\[|\\(?:frac|times|boxed|text)\b|^\s*[-*] ", re.MULTILINE
)


@dataclass(frozen=True)
class Check:
    """A check: ``fails`` returns whether a generated problem is dropped; ``reason`` is the
    funnel's.
    """

    reason: str
    fails: Callable[[str, str, str], bool]
    """Takes problem, solution and answer; the checks before it have passed."""


def _part_missing(problem: str, solution: str, answer: str) -> bool:
    return not (problem.strip() and solution.strip() and answer.strip())


def _tagged(problem: str, solution: str, answer: str) -> bool:
    return bool(_TAG.search(problem) or _TAG.search(solution))


def _asks_nothing(problem: str, solution: str, answer: str) -> bool:
    return "?" not in problem and not _ASKS.search(problem)


def _not_a_number(problem: str, solution: str, answer: str) -> bool:
    return check_arithmetic.number(answer) is None


def _without_annotation(problem: str, solution: str, answer: str) -> bool:
    return not check_arithmetic.ANNOTATION.search(solution)


def _negative(problem: str, solution: str, answer: str) -> bool:
    return _value(answer) < 0


def _too_large(problem: str, solution: str, answer: str) -> bool:
    return _value(answer) > LARGEST


def _problem_length(problem: str, solution: str, answer: str) -> bool:
    return len(words(problem)) < FEWEST_WORDS or len(problem) > LONGEST_PROBLEM


def _solution_too_long(problem: str, solution: str, answer: str) -> bool:
    steps = len(check_arithmetic.ANNOTATION.findall(solution))
    return len(solution) > LONGEST_SOLUTION or steps > MOST_STEPS


def _without_words(problem: str, solution: str, answer: str) -> bool:
    text = check_arithmetic.ANNOTATION.sub("", solution)
    return sum(word.isalpha() for word in words(text)) < SAID_WITHOUT_NUMBERS


def _lines_repeated(problem: str, solution: str, answer: str) -> bool:
    lines = Counter(line for line in map(str.strip, solution.splitlines()) if line)
    return max(lines.values(), default=0) >= REPEATED


def _matches(pattern: re.Pattern[str]) -> Callable[[str, str, str], bool]:
    return lambda problem, solution, answer: bool(pattern.search(f"{problem}\n{solution}"))


# Not a public tuple: a dataset's manifest records those as thresholds.
_CHECKS = (
    Check("structure: a part is missing", _part_missing),
    Check("structure: a tag or mark of the format is left", _tagged),
    Check("structure: the problem asks nothing", _asks_nothing),
    Check("structure: the answer is not a number", _not_a_number),
    Check(f"structure: {check_arithmetic.NO_ANNOTATION}", _without_annotation),
    Check("answer range: negative", _negative),
    Check(f"answer range: over {LARGEST}", _too_large),
    Check("solution quality: problem too short or too long", _problem_length),
    Check("solution quality: solution too long", _solution_too_long),
    Check("solution quality: numbers without words", _without_words),
    Check("solution quality: lines repeated", _lines_repeated),
    Check("AI detection: self-reference", _matches(_SELF)),
    Check("AI detection: boilerplate", _matches(_BOILERPLATE)),
    Check("AI detection: markup", _matches(_MARKUP)),
)
REASONS = (
    *(check.reason for check in _CHECKS),
    *(f"math verification: {reason}" for reason in check_arithmetic.REASONS),
)
"""Every reason, in the order checked."""


def fault(problem: str, solution: str, answer: str) -> str | None:
    """Returns the first of REASONS that applies to a generated problem with its annotations, or
    None. Pure.
    """
    for check in _CHECKS:
        if check.fails(problem, solution, answer):
            return check.reason
    found = check_arithmetic.fault(problem, solution, _value(answer))
    return f"math verification: {found}" if found else None


def _value(answer: str) -> Fraction:
    value = check_arithmetic.number(answer)
    assert value is not None
    return value
