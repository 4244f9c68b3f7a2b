"""The problems that several evaluations share, and helpers for comparisons over them."""

from __future__ import annotations

from collections.abc import Set

from eval.grading.metrics import TOTAL, accuracies
from eval.results.evaluation import Evaluation, Values

Problems = Set[tuple[str, str]]
"""(set, problem id) of each."""


def set_names(keys: Problems) -> list[str]:
    """Returns the sets of the problems, and the total if there are several."""
    sets = sorted({name for name, _ in keys})
    return [*sets, TOTAL] if len(sets) > 1 else sets


def only(values: Values, keys: Problems) -> Values:
    """Returns the values of these problems."""
    return {key: value for key, value in values.items() if key in keys}


def other_accuracies(*these: Evaluation) -> tuple[str, ...]:
    """Returns the names of the accuracies other than pass@1, which depend on n; none if the
    evaluations' n differ or n is 1.
    """
    n = these[0].n
    if n == 1 or any(e.n != n for e in these):
        return ()
    return accuracies(n)[1:]


def p_value(value: float) -> str:
    """Returns a p-value as text, with ``=`` or ``<``."""
    return "< 0.0001" if value < 0.0001 else f"= {value:.4f}"
