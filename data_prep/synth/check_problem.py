"""The filters that look at one generated problem alone: structure, answer range, solution quality,
AI detection, and math verification; in this order, each with its reasons in the funnel.

The bounds are set on GSM8K's own training rows: apart from those without an annotation, all but one
in a thousand pass structure, quality and AI detection.
"""

from __future__ import annotations

import re

from data_prep.duplicates.normalise_text import words
from data_prep.synth import check_arithmetic

LARGEST = 225_000
"""Largest answer of the published dataset."""
FEWEST_WORDS = 8
"""Least words of a problem; GSM8K's shortest has 9."""
LONGEST_PROBLEM = 1_500
"""Most characters of a problem; GSM8K's longest has 985."""
LONGEST_SOLUTION = 2_000
"""Most characters of a solution, annotations included; GSM8K's longest has 1,228."""
MOST_STEPS = 15
"""Most annotations of a solution; GSM8K has at most 11."""
SAID_WITHOUT_NUMBERS = 3
"""Least words of a solution, not counting numbers: fewer explain nothing."""
REPEATED = 3
"""Occurrences from which a line counts as repeated."""

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

_STRUCTURE = (
    "structure: a part is missing",
    "structure: a tag or mark of the format is left",
    "structure: the problem asks nothing",
    "structure: the answer is not a number",
    f"structure: {check_arithmetic.NO_ANNOTATION}",
)
_RANGE = ("answer range: negative", f"answer range: over {LARGEST}")
_QUALITY = (
    "solution quality: problem too short or too long",
    "solution quality: solution too long",
    "solution quality: numbers without words",
    "solution quality: lines repeated",
)
_AI = ("AI detection: self-reference", "AI detection: boilerplate", "AI detection: markup")
REASONS = (
    *_STRUCTURE,
    *_RANGE,
    *_QUALITY,
    *_AI,
    *(f"math verification: {reason}" for reason in check_arithmetic.REASONS),
)
"""Every reason, in the order checked."""


def fault(problem: str, solution: str, answer: str) -> str | None:
    """Returns the first of REASONS that applies to a generated problem with its annotations, or
    None. Pure.
    """
    return (
        _structure(problem, solution, answer)
        or _range(answer)
        or _quality(problem, solution)
        or _ai(f"{problem}\n{solution}")
        or _math(problem, solution, answer)
    )


def _structure(problem: str, solution: str, answer: str) -> str | None:
    missing, tagged, statement, text, without = _STRUCTURE
    if not (problem.strip() and solution.strip() and answer.strip()):
        return missing
    if _TAG.search(problem) or _TAG.search(solution):
        return tagged
    if "?" not in problem and not _ASKS.search(problem):
        return statement
    if check_arithmetic.number(answer) is None:
        return text
    return None if check_arithmetic.ANNOTATION.search(solution) else without


def _range(answer: str) -> str | None:
    value = check_arithmetic.number(answer)
    assert value is not None
    if value < 0:
        return _RANGE[0]
    return _RANGE[1] if value > LARGEST else None


def _quality(problem: str, solution: str) -> str | None:
    length, long, mute, looping = _QUALITY
    if len(words(problem)) < FEWEST_WORDS or len(problem) > LONGEST_PROBLEM:
        return length
    if (
        len(solution) > LONGEST_SOLUTION
        or len(check_arithmetic.ANNOTATION.findall(solution)) > MOST_STEPS
    ):
        return long
    said = [word for word in words(check_arithmetic.ANNOTATION.sub("", solution)) if word.isalpha()]
    if len(said) < SAID_WITHOUT_NUMBERS:
        return mute
    lines = [line for line in map(str.strip, solution.splitlines()) if line]
    return looping if any(lines.count(line) >= REPEATED for line in set(lines)) else None


def _ai(text: str) -> str | None:
    return next(
        (
            reason
            for reason, p in zip(_AI, (_SELF, _BOILERPLATE, _MARKUP), strict=True)
            if p.search(text)
        ),
        None,
    )


def _math(problem: str, solution: str, answer: str) -> str | None:
    value = check_arithmetic.number(answer)
    assert value is not None
    found = check_arithmetic.fault(problem, solution, value)
    return f"math verification: {found}" if found else None
