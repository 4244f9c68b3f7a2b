"""How far a benchmark's mean may be from what other problems of its kind would give."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LEVEL = 0.95
DRAWS = 4_000


def interval(sets: Sequence[Sequence[float]], low: float = 0.0, high: float = 1.0) -> tuple[float, float]:
    """The interval of ``LEVEL`` for the mean over all problems of ``sets``, each a list of a problem's values.

    A percentile bootstrap over problems, drawn within each set (Efron and Tibshirani, An Introduction to the
    Bootstrap, 1993, chapter 13). Where all n problems have one value, which shows a bootstrap no spread, at
    most 1 - ((1 - LEVEL) / 2) ** (1 / n) of such problems have another, and the mean moves by at most that
    share of the way to ``low`` and ``high``, the bounds of a value.
    """
    values = np.concatenate([np.asarray(s, float) for s in sets])
    tail = (1 - LEVEL) / 2
    if np.ptp(values) == 0:
        mean, share = values[0], 1 - tail ** (1 / len(values))
        return float(mean - share * (mean - low)), float(mean + share * (high - mean))
    random = np.random.default_rng(0)
    sums = sum(np.asarray(s)[random.integers(len(s), size=(DRAWS, len(s)))].sum(1) for s in sets)
    lower, upper = np.quantile(sums / len(values), (tail, 1 - tail))
    return float(lower), float(upper)
