"""Intervals over runs and problems, for means of replicates (runs of one recipe that differ only in
the training seed) and for differences of such means.

Every run answers every problem, so the runs and the problems are two crossed random factors:

    value(run, problem) = mean + run effect + problem effect + rest

and Var(mean) = s_run^2 / R + s_problem^2 / P + s_rest^2 / (R P) for R runs and P problems (Searle,
Casella and McCulloch, Variance Components, 1992, chapter 4). The variance between the runs' means,
divided by R, estimates the first and the last part together; the variance between the problems'
means, divided by P, estimates the second and the last. The rest, which includes the sampling of
rollouts, is estimated from the residuals and subtracted from the latter, so that it counts once.
The parts are combined by Banerjee's interval, whose half width is sqrt(sum of t_i^2 V_i), t_i
Student's quantile with the degrees of freedom of V_i (On Confidence Interval for Two-Means Problem
Based on Separate Estimates of Variances and Tabulated Values of t-Table, Sankhya 23, 1961). It
covers at least its level whatever the shares of the parts are, also with the single degree of
freedom of two runs, where Satterthwaite's approximation and the pigeonhole bootstrap (Owen, 2007)
are too narrow. The parts' intervals may be asymmetric, so lower and upper ends are combined
separately (MOVER: Zou and Donner, Construction of Confidence Limits about Effect Measures, 2008).
No end is nearer to the mean than the end over problems alone: accuracies are multiples of one
rollout's share, so two runs may have equal means by chance, as if nothing varied between runs.

Run effects are assumed to be normal; two to five runs are too few to test that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import exp, hypot, log, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eval.grading import intervals
from eval.grading.intervals import GAFFKE, LEVEL, Difference, Interval, Sets, variance_of_mean
from eval.grading.simultaneous import AllPairs, Pair

BANERJEE = "Banerjee's interval"
SMALLEST = 1e-6
"""Smallest p-value that is reported."""
_SMALL = 1e-20
"""Variances below this are rounding errors."""
Runs = Sequence[Sets]
"""One value per problem of each run, aligned, in one list per set."""


@dataclass(frozen=True)
class _Part:
    """The estimated variance of a mean that one factor causes, and its degrees of freedom."""

    variance: float
    freedom: float

    def half(self, level: float) -> float:
        """Returns half the width of Student's interval."""
        from scipy.special import stdtrit  # slow to import

        return float(stdtrit(self.freedom, (1 + level) / 2)) * sqrt(self.variance)


class Spread(NamedTuple):
    """The standard deviation between runs, beyond what the sampling of problems and rollouts
    explains, with its interval, and the p-value of none.
    """

    deviation: float
    lower: float
    upper: float
    p: float

    @property
    def is_told(self) -> bool:
        """Whether the spread is significantly different from 0."""
        return self.lower > 0


def mean(runs: Runs, level: float = LEVEL) -> Interval:
    """Returns the interval for the mean of at least two runs over runs and problems, of values in
    0..1.

    The problems' part is :func:`eval.grading.intervals.interval` of each problem's mean over runs,
    which is valid near 0 and 1; the runs' part is Student's interval on the logit scale.
    """
    sets, between = over_runs(runs), _between(runs)
    middle = _mean(sets)
    found = intervals.interval(sets, level)
    share = _share(sets, found.method, [runs])
    low, high = _logit_interval(middle, between.half(level))
    lower = middle - _together(share, middle - found.lower, middle - low)
    upper = middle + _together(share, found.upper - middle, high - middle)
    return Interval(max(0.0, lower), min(1.0, upper), BANERJEE)


def mean_of_reals(runs: Runs, level: float = LEVEL) -> Interval:
    """Returns the same for values of any size, with Student's interval for both parts."""
    sets, between = over_runs(runs), _between(runs)
    share = _share(sets, BANERJEE, [runs])
    half = _together(share, _Part(*variance_of_mean(sets)).half(level), between.half(level))
    return Interval(_mean(sets) - half, _mean(sets) + half, BANERJEE)


def change(runs: Runs) -> Difference:
    """Returns the mean over runs of differences in -1..1 within one run and problem, with its
    interval over runs and problems; of one run, over problems alone.
    """
    return _found(over_runs(runs), [runs])


def difference(before: Runs, after: Runs) -> Difference:
    """Returns the mean of ``after`` minus that of ``before``, paired by problem, the runs of both
    independent, with its interval over runs and problems.

    Their numbers of runs may differ. If one side has a single run, nothing is known about other
    seeds of it: the interval then holds for that run, over problems and over the runs of the other
    side if that has several.
    """
    return _found(_minus(over_runs(after), over_runs(before)), [before, after])


def spread(runs: Runs, level: float = LEVEL) -> Spread:
    """Returns the standard deviation between at least two runs.

    With S^2 the variance between the runs' means and V the part of it that the residuals of
    problems explain, the estimate is sqrt(max(0, S^2 - V)), its interval that of Tukey and Williams
    (Williams, A Confidence Interval for Variance Components, 1962), and p that of F = S^2 / V.
    """
    from scipy.special import chdtri, fdtrc, fdtri  # slow to import

    rest, freedom = _rest(runs), len(runs) - 1
    total = _variance_of_means(runs)
    explained = rest.variance * len(runs)
    tail = (1 - level) / 2
    p, ends = 0.0 if total else 1.0, [total, total]
    if explained:
        p = float(fdtrc(freedom, rest.freedom, total / explained))
        # The F-quantiles that the observed ratio is set against, for the lower and the upper end.
        ends = [
            total - explained * float(fdtri(freedom, rest.freedom, q)) for q in (1 - tail, tail)
        ]
    # Of freedom S^2 / sigma^2, as chi-square.
    scales = [freedom / float(chdtri(freedom, q)) for q in (tail, 1 - tail)]
    low, high = (max(0.0, end) * scale for end, scale in zip(ends, scales, strict=True))
    return Spread(sqrt(max(0.0, total - explained)), sqrt(low), sqrt(high), p)


def all_pairs(models: Sequence[Runs]) -> AllPairs:
    """Returns the differences of all pairs of models that the same two or more runs have, such as
    their checkpoints of several steps, paired by run and problem.

    The correction is Bonferroni's: intervals have the level 1 - (1 - ``LEVEL``) / pairs, p is
    multiplied by the number of pairs. Sign flips, as in :mod:`eval.grading.simultaneous`, are not
    possible: two runs have only two signs to flip.
    """
    pairs = list(combinations(range(len(models)), 2))
    found = {}
    for i, j in pairs:
        runs = [_minus(b, a) for a, b in zip(models[i], models[j], strict=True)]
        sets = over_runs(runs)
        bounds, error = _bounds(sets, [runs])
        lower, upper = bounds(1 - (1 - LEVEL) / len(pairs))
        p = min(1.0, len(pairs) * _p(_mean(sets), bounds))
        found[i, j] = Pair(_mean(sets), max(-1.0, lower), min(1.0, upper), p, error)
    return AllPairs(None, found)


def over_runs(runs: Runs) -> list[list[float]]:
    """Returns each problem's mean over the runs, by set."""
    return [np.mean(np.asarray(of, float), axis=0).tolist() for of in zip(*runs, strict=True)]


def middle(runs: Runs) -> float:
    """Returns the mean over all runs and problems."""
    return _mean(over_runs(runs))


def _found(sets: Sets, groups: Sequence[Runs]) -> Difference:
    several = [runs for runs in groups if len(runs) > 1]
    if not several:
        return intervals.difference(sets)
    bounds, _ = _bounds(sets, several)
    middle, (lower, upper) = _mean(sets), bounds(LEVEL)
    p = _p(middle, bounds)
    return Difference(middle, max(-1.0, lower), min(1.0, upper), p, BANERJEE)


def _bounds(
    sets: Sets, groups: Sequence[Runs]
) -> tuple[Callable[[float], tuple[float, float]], float]:
    """Returns (function from a level to the interval's ends, the standard error) of the mean of
    ``sets``, each problem's difference of the ``groups``' means.
    """
    middle, parts = _mean(sets), [_between(runs) for runs in groups]
    share = _share(sets, intervals.difference(sets).method, groups)

    def bounds(level: float) -> tuple[float, float]:
        found = intervals.difference(sets, level)
        halves = [part.half(level) for part in parts]
        return (
            middle - _together(share, middle - found.lower, *halves),
            middle + _together(share, found.upper - middle, *halves),
        )

    variance = share**2 * variance_of_mean(sets)[0] + sum(part.variance for part in parts)
    return bounds, sqrt(variance)


def _together(share: float, of_problems: float, *of_runs: float) -> float:
    """Returns the distance of an end of the combined interval from the mean."""
    return max(hypot(share * of_problems, *of_runs), of_problems)


def _p(middle: float, bounds: Callable[[float], tuple[float, float]]) -> float:
    """Returns 1 - the largest level whose interval excludes 0, by bisection."""
    if middle == 0:
        return 1.0

    def excludes(p: float) -> bool:
        lower, upper = bounds(1 - p)
        return not lower <= 0 <= upper

    if excludes(SMALLEST):
        return SMALLEST
    low, high = log(SMALLEST), 0.0
    while high - low > 1e-3:
        half = (low + high) / 2
        low, high = (low, half) if excludes(exp(half)) else (half, high)
    return exp(high)


def _share(sets: Sets, method: str, groups: Sequence[Runs]) -> float:
    """Returns the factor that removes the ``groups``' rest, which is counted in the runs' part,
    from the width of the problems' part; 1 if that width was found without a variance (Gaffke's
    bound).
    """
    variance = variance_of_mean(sets)[0]
    if method == GAFFKE or not variance:
        return 1.0
    rest = sum(_rest(runs).variance for runs in groups)
    return sqrt(max(0.0, 1 - rest / variance))


def _between(runs: Runs) -> _Part:
    """Returns the part of the runs' effects and of the rest."""
    return _Part(_variance_of_means(runs) / len(runs), len(runs) - 1)


def _rest(runs: Runs) -> _Part:
    """Returns the part of the rest, from the residuals after the run's and the problem's means,
    within each set; if a set has only one problem, all problems count as one set (as in
    ``variance_of_mean``).
    """
    parts: list[NDArray[np.float64]] = [np.asarray(s, float) for s in zip(*runs, strict=True)]
    if min(part.shape[1] for part in parts) < 2:
        parts = [np.concatenate(parts, axis=1)]
    total = sum(part.shape[1] for part in parts)
    if total < 2:
        return _Part(0.0, 1.0)
    variance = spread_of = 0.0
    for part in parts:
        count, problems = part.shape
        left = part - part.mean(axis=0)
        left = left - left.mean(axis=1, keepdims=True)
        freedom = (count - 1) * (problems - 1)
        of_set = problems * float((left**2).sum()) / freedom / total**2 / count
        variance, spread_of = variance + of_set, spread_of + of_set**2 / freedom
    if variance < _SMALL:
        return _Part(0.0, 1.0)
    return _Part(variance, variance**2 / spread_of)


def _variance_of_means(runs: Runs) -> float:
    variance = float(np.var([_mean(sets) for sets in runs], ddof=1))
    return variance if variance > _SMALL else 0.0


def _logit_interval(middle: float, half: float) -> tuple[float, float]:
    """Returns the interval of ``half`` the width on either side, with ends that lie evenly around
    ``middle`` on the scale of the logit (delta method).
    """
    if not half:
        return middle, middle
    odds, wide = log(middle / (1 - middle)), half / (middle * (1 - middle))
    return _logistic(odds - wide), _logistic(odds + wide)


def _logistic(x: float) -> float:
    return 1 / (1 + exp(-x)) if x > -700 else 0.0


def _mean(sets: Sets) -> float:
    return sum(map(sum, sets)) / sum(map(len, sets))


def _minus(after: Sets, before: Sets) -> list[list[float]]:
    return [
        [b - a for a, b in zip(one, two, strict=True)]
        for one, two in zip(before, after, strict=True)
    ]
