"""Math verification: recomputes every ``<<expression=result>>`` of a solution exactly and checks
the chain of steps.

The annotations are GSM8K's. A solution passes when each result is right, a number written right
after an annotation is its result, each number that a step uses has a source, and the last result is
the answer.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from data_prep.duplicates.normalise_text import words

NO_ANNOTATION = "no annotation"
BROKEN = "annotation that is not expression=result"
WRONG = "wrong arithmetic"
SHOWN = "another result shown than computed"
CARRY = "wrong carry between steps"
UNREACHED = "answer not reached"
REASONS = (BROKEN, WRONG, SHOWN, CARRY, UNREACHED)
"""Every reason, in the order checked."""

LONGEST = 200
"""Maximum length of an expression, in characters; a longer one counts as BROKEN."""
GIVEN = (0.5, 2, 100)
"""Numbers that a step may use without a source: for halves, doubles and percentages."""

ANNOTATION = re.compile(r"<<([^<>]*)>>")
_NUMBER = re.compile(r"[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+")
_SHOWN = re.compile(rf"[\s$€£]*({_NUMBER.pattern})")
_SENTENCE = re.compile(r"\n|[.?!] ")
_SPELLED = (
    (
        range(20),
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
        "fifteen sixteen seventeen eighteen nineteen",
    ),
    (range(20, 100, 10), "twenty thirty forty fifty sixty seventy eighty ninety"),
    ((2, 3, 3, 3, 3), "couple third thirds thrice triple"),
    ((4, 4, 4, 4, 5, 5), "fourth fourths quarter quarters fifth fifths"),
    ((7, 7, 12, 12, 24, 24), "week weeks dozen year day days"),
    ((60, 60, 60, 60), "hour hours minute minutes"),
)
_NAMED = {
    word: Fraction(value)
    for values, named in _SPELLED
    for value, word in zip(values, named.split(), strict=True)
}

_OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}


@dataclass(frozen=True)
class Step:
    """One annotation of a solution, at ``start`` to ``end`` in its text."""

    start: int
    end: int
    operands: tuple[Fraction, ...]
    computed: Fraction
    claimed: Fraction


def number(text: str) -> Fraction | None:
    """Returns the exact value of a plain decimal number (thousands commas, sign and dollar sign
    allowed), or None.
    """
    plain = text.strip().removeprefix("$").replace(",", "").rstrip(".")
    return (
        Fraction(plain)
        if re.fullmatch(r"[+-]?(?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})", plain)
        else None
    )


def fault(problem: str, solution: str, answer: Fraction) -> str | None:
    """Returns the first of REASONS that applies to a solution with at least one annotation, or
    None.

    Pure. Time is quadratic in the number of steps, of which there is at most one per five
    characters.
    """
    try:
        steps = [_step(match) for match in ANNOTATION.finditer(solution)]
    except (ValueError, ZeroDivisionError):
        return BROKEN
    if any(step.computed != step.claimed for step in steps):
        return WRONG
    if any(_shown(solution, step) not in (None, step.computed) for step in steps):
        return SHOWN
    if _from_nowhere(problem, solution, steps, answer):
        return CARRY
    return None if steps[-1].computed == answer else UNREACHED


def _step(match: re.Match[str]) -> Step:
    expression, equals, result = match[1].partition("=")
    claimed = number(result)
    if not equals or claimed is None or len(expression) > LONGEST:
        raise ValueError(match[0])
    operands = tuple(_values(expression))
    return Step(match.start(), match.end(), operands, _computed(expression), claimed)


def _computed(expression: str) -> Fraction:
    """Returns the exact value of an expression. Raises ValueError for anything except decimal
    numbers with + - * / // and parentheses, ZeroDivisionError for a division by zero.
    """
    # Numbers become subscripts of a name, so that they are never parsed as floats and 007 is a
    # number.
    named = _NUMBER.sub(lambda m: f"n[{m[0].replace(',', '')!r}]", expression)
    try:
        return _value(ast.parse(named.strip(), mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError) as e:
        raise ValueError(expression) from e


def _value(node: ast.expr) -> Fraction:
    match node:
        case ast.BinOp(left, op, right) if type(op) in _OPERATORS:
            return Fraction(_OPERATORS[type(op)](_value(left), _value(right)))
        case ast.UnaryOp(op, operand) if type(op) in _OPERATORS:
            return Fraction(_OPERATORS[type(op)](_value(operand)))
        case ast.Subscript(ast.Name("n"), ast.Constant(str(digits))):
            return Fraction(digits)
    raise ValueError(ast.dump(node))


def _values(text: str) -> list[Fraction]:
    return [Fraction(found.replace(",", "")) for found in _NUMBER.findall(text)]


def _named(text: str) -> set[Fraction]:
    """Returns the numbers in a text, written in digits or in words."""
    return {*_values(text), *(_NAMED[word] for word in words(text) if word in _NAMED)}


def _shown(solution: str, step: Step) -> Fraction | None:
    found = _SHOWN.match(solution, step.end)
    return Fraction(found[1].replace(",", "")) if found else None


def _from_nowhere(problem: str, solution: str, steps: list[Step], answer: Fraction) -> bool:
    """Returns whether a step uses a number from nowhere while an earlier step's result is never
    used again.

    Each of the two is common in right solutions: a step without its annotation, a constant of
    nature.
    """
    known = _named(problem) | set(map(Fraction, GIVEN))
    for i, step in enumerate(steps):
        if len(step.operands) > 1:
            sentence = max(
                (m.end() for m in _SENTENCE.finditer(solution, 0, step.start)), default=0
            )
            said = (
                _named(ANNOTATION.sub("", solution[:sentence]))
                | known
                | {s.computed for s in steps[:i]}
            )
            odd = [x for x in step.operands if x not in said and not _is_percent(x, said)]
            if odd and any(_unused(solution, s, answer) for s in steps[:i]):
                return True
    return False


def _is_percent(value: Fraction, said: set[Fraction]) -> bool:
    """Returns whether ``value`` is x/100, 100x, 1 - x/100 or 1 + x/100 for a known number x."""
    return not said.isdisjoint((value * 100, value / 100, (1 - value) * 100, (value - 1) * 100))


def _unused(solution: str, step: Step, answer: Fraction) -> bool:
    found = _SHOWN.match(solution, step.end)
    later = solution[found.end() if found else step.end :]
    return step.computed != answer and step.computed not in _named(later)
