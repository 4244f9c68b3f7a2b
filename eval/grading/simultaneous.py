"""Tests every pair of several models on the same problems at once, so that choosing the best one by
its figure does not turn chance into a significant difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eval.grading.intervals import LEVEL, Sets

DRAWS = 10_000
"""Number of random sign flips. With this many, a corrected p of 0.05 is accurate to 0.004."""
_SMALL = 1e-12
"""Variances of differences below this are rounding errors."""

Array = NDArray[np.float64]


class Pair(NamedTuple):
    """The mean difference of two models over the problems, its simultaneous interval, its corrected
    p, and its standard error.
    """

    mean: float
    lower: float
    upper: float
    p: float
    error: float

    @property
    def is_told(self) -> bool:
        """Whether the difference is significant after the correction."""
        return self.p <= 1 - LEVEL


@dataclass(frozen=True)
class AllPairs:
    """The differences of all pairs of models."""

    critical: float | None
    """Number of standard errors that a difference must exceed; may be infinite if there are few
    problems; None if the pairs have no common number (:mod:`eval.grading.replicates`).
    """
    found: Mapping[tuple[int, int], Pair]
    """(i, j) -> model j minus model i, for i < j."""

    def between(self, i: int, j: int) -> Pair:
        """Returns model ``j`` minus model ``i``."""
        if i < j:
            return self.found[i, j]
        mean, lower, upper, p, error = self.found[j, i]
        return Pair(-mean, -upper, -lower, p, error)


def all_pairs(models: Sequence[Sets]) -> AllPairs:
    """Returns the differences of at least two models, each with one value in 0..1 per problem,
    aligned, in one list per set.

    It is the single-step maximum test (Westfall and Young, Resampling-Based Multiple Testing, 1993,
    section 2.3; Romano and Wolf, Exact and Approximate Stepdown Methods for Multiple Hypothesis
    Testing, 2005), by sign flips. A draw flips the signs of all differences of a problem together,
    which keeps the correlation of pairs that share a model; of each draw only the largest |t| of
    all pairs counts, t = mean / standard error, with a stratified sample's variance (as in
    :mod:`eval.grading.intervals`) computed in each draw. A pair's corrected p is (1 + draws whose
    largest |t| reaches its own) / (1 + draws), its interval mean ± c x standard error, with c the
    ``LEVEL`` quantile of the largest |t|. If all problems of each set have the same difference, no
    error can be estimated, and the interval is -1..1.

    All pairs form one family: the chance that any two equal models differ significantly is at most
    1 - ``LEVEL``, even if a model is examined because it came out best. This is exact if the
    differences of a problem are symmetric around 0 when models are equal, and holds for many
    problems otherwise (Janssen, Studentized Permutation Tests for Non-i.i.d. Hypotheses, 1997).
    """
    pairs = list(combinations(range(len(models)), 2))
    of_sets = [_differences(values, pairs) for values in zip(*models, strict=True)]
    if min(d.shape[1] for d in of_sets) < 2:
        of_sets = [np.concatenate(of_sets, axis=1)]
    squares = [(d**2).sum(1) for d in of_sets]
    sizes = [d.shape[1] for d in of_sets]
    means, errors, observed = _studentised([d.sum(1) for d in of_sets], squares, sizes)
    random = np.random.default_rng(0)
    flips = [random.choice([-1.0, 1.0], size=(DRAWS, size)) for size in sizes]
    sums = [signs @ d.T for signs, d in zip(flips, of_sets, strict=True)]
    largest = _studentised(sums, squares, sizes)[2].max(1)
    reached = (largest[:, None] >= observed * (1 - 1e-9)).sum(0)
    # "higher": with infinite values among them there is no interpolation.
    critical = float(np.quantile(largest, LEVEL, method="higher"))
    half = np.full_like(errors, np.inf)
    np.multiply(critical, errors, out=half, where=errors > 0)
    found = {
        pair: Pair(
            float(means[k]),
            max(-1.0, float(means[k] - half[k])),
            min(1.0, float(means[k] + half[k])),
            float((1 + reached[k]) / (1 + DRAWS)),
            float(errors[k]),
        )
        for k, pair in enumerate(pairs)
    }
    return AllPairs(critical, found)


def _differences(models: Sequence[Sequence[float]], pairs: Sequence[tuple[int, int]]) -> Array:
    """Returns the differences of one set's problems, of shape (pairs, problems)."""
    values = np.asarray(models, float)
    return np.stack([values[j] - values[i] for i, j in pairs])


def _studentised(
    sums: Sequence[Array], squares: Sequence[Array], sizes: Sequence[int]
) -> tuple[Array, Array, Array]:
    """Returns means, their standard errors and |t|, from each set's sum of differences, its sum of
    their squares, which no flip changes, and its number of problems.

    If all problems of each set have the same difference, |t| of a mean other than 0 is infinite.
    """
    total = sum(sizes)
    mean = sum(sums) / total
    variance = np.zeros_like(mean)
    for s, square, size in zip(sums, squares, sizes, strict=True):
        if size > 1:
            variance += size / (size - 1) * (square - s**2 / size) / total**2
    error = np.sqrt(np.where(variance > _SMALL, variance, 0.0))
    alike = np.where(np.abs(mean) > _SMALL, np.inf, 0.0)
    t = np.divide(np.abs(mean), error, out=alike, where=error > 0)
    return np.asarray(mean), error, t
