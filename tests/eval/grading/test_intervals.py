"""Intervals cover the truth, and the paired test errs, as often as they say: by simulation, with
fixed seeds.

A problem has a chance of being right, drawn from one of several shapes with a given mean; its value
is the share of right rollouts. What is claimed fails a test that it holds for in one of 100,000
series of trials.
"""

from collections.abc import Callable, Iterator, Sequence
from math import sqrt

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from eval.grading import intervals
from eval.grading.intervals import GAFFKE, STUDENT, WILSON, difference, interval

SHAPES = ("all or nothing", "two kinds", "hard and easy", "any", "alike", "the same")
MANY = pytest.param(10_000, marks=pytest.mark.slow)
Chances = NDArray[np.float64]


def chances(random: np.random.Generator, shape: str, mean: float, size: tuple[int, ...]) -> Chances:
    if shape == "all or nothing":
        return (random.random(size) < mean).astype(float)
    if shape == "two kinds":  # half of the time right, or never (or always, above a mean of a half)
        share = (random.random(size) < 2 * min(mean, 1 - mean)) / 2
        return share if mean <= 0.5 else 1 - share
    if shape == "the same":
        return np.full(size, mean)
    spread = {"hard and easy": 0.3, "any": 1.5, "alike": 8.0}[shape]
    return random.beta(spread * mean, spread * (1 - mean), size)


def coverage(
    shape: str, means: Sequence[float], problems: Sequence[int], trials: int, method=interval
) -> float:
    """Share of trials whose interval holds the mean over the sets."""
    random = np.random.default_rng(list(map(int, (shape + str(means)).encode())))
    truth = float(np.average(means, weights=problems))
    sets = [
        chances(random, shape, mean, (trials, n)) for mean, n in zip(means, problems, strict=True)
    ]
    values = [random.binomial(16, s) / 16 for s in sets]
    held = 0
    for trial in zip(*values, strict=True):
        lower, upper, *_ = method(trial)
        held += lower - 1e-9 <= truth <= upper + 1e-9
    return held / trials


def least(share: float, trials: int) -> float:
    """The smallest share of trials that a chance of ``share`` is believed to give."""
    return stats.binom.ppf(1e-5, trials, share) / trials


def most(share: float, trials: int) -> float:
    return stats.binom.isf(1e-5, trials, share) / trials


def percentile_bootstrap(sets: Sequence[Chances]) -> tuple[float, float]:
    (values,) = sets
    means = values[np.random.default_rng(0).integers(len(values), size=(500, len(values)))].mean(1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


@pytest.mark.parametrize("trials", [1_000, MANY])
@pytest.mark.parametrize("shape", SHAPES)
def test_an_interval_of_an_ordinary_mean_covers_it_in_93_to_97_of_100(
    shape: str, trials: int
) -> None:
    cases: list[tuple[Sequence[float], Sequence[int]]] = [
        ([0.2], [30]),
        ([0.5], [30]),
        ([0.8], [30]),
        ([0.3], [100]),
        ([0.22, 0.22, 0.64], [30, 30, 40]),
        ([0.02, 0.02, 0.64], [30, 30, 40]),
    ]
    for means, problems in cases:
        covered = coverage(shape, means, problems, trials)
        assert least(0.93, trials) <= covered <= most(0.97, trials), (means, problems, covered)


@pytest.mark.parametrize("trials", [150, pytest.param(2_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("mean", [0.02, 0.98])
def test_near_the_floor_and_the_ceiling_it_covers_at_least_93_of_100(
    mean: float, trials: int
) -> None:
    for shape in SHAPES:
        covered = coverage(shape, [mean], [30], trials)
        assert covered >= least(0.93, trials), (shape, covered)


def test_a_plain_bootstrap_would_be_caught_near_the_floor() -> None:
    for shape in SHAPES[:4]:
        assert coverage(shape, [0.02], [30], 300, percentile_bootstrap) < least(0.93, 300), shape


def test_strata_are_what_narrows_an_interval() -> None:
    easy, hard = [0.9, 1.0, 0.8, 1.0] * 10, [0.0, 0.1, 0.0, 0.2] * 10
    apart, together = interval([easy, hard]), interval([[*easy, *hard]])
    assert apart.upper - apart.lower < 0.3 * (together.upper - together.lower)


def test_the_method_is_named() -> None:
    assert interval([[0.5, 0.25] * 15]).method == WILSON
    assert interval([[0.0625] + [0.0] * 29]).method == interval([[1.0] * 40]).method == GAFFKE
    assert interval([[0.5] * 40]).method == GAFFKE
    assert difference([[0.5, 0.25] * 15]).method == STUDENT
    assert difference([[0.5] * 5 + [0.0] * 25]).method == GAFFKE


def test_an_interval_without_spread_is_the_exact_binomials() -> None:
    """The classic bound for none in n: 1 - 0.025 ** (1 / n)."""
    assert interval([[0.0] * 30, [0.0] * 70])[:2] == (0.0, pytest.approx(0.03622, abs=1e-4))
    assert interval([[1.0] * 100])[:2] == (pytest.approx(0.96378, abs=1e-4), 1.0)
    found = difference([[0.0] * 100])
    assert (
        found[:3] == (0.0, pytest.approx(-0.03622, abs=1e-4), pytest.approx(0.03622, abs=1e-4))
        and found.p == 1
    )


def test_few_right_ones_are_the_exact_binomials() -> None:
    """Clopper and Pearson's, whose bounds are quantiles of beta distributions."""
    lower, upper, _ = interval([[1.0, 1.0] + [0.0] * 28])
    exact = stats.beta.ppf([0.025, 0.975], [2, 3], [29, 28])
    assert (lower, upper) == pytest.approx(tuple(exact), abs=0.005)


def test_of_one_set_the_difference_is_the_paired_t_test() -> None:
    values = np.random.default_rng(0).normal(0.05, 0.2, 40).tolist()
    theirs = stats.ttest_1samp(values, 0)
    bounds = theirs.confidence_interval(0.95)
    found = difference([values])
    assert (found.lower, found.upper, found.p) == pytest.approx(
        (bounds.low, bounds.high, theirs.pvalue)
    )


NULLS = [(mean, n, rollouts) for mean in (0.02, 0.4) for n in (30, 100) for rollouts in (1, 16)]


def nulls(
    shape: str, mean: float, problems: int, rollouts: int, trials: int, same: bool
) -> Iterator[Chances]:
    """Differences of two models alike: of the same chances, or of chances that differ by problem,
    not in the mean.
    """
    random = np.random.default_rng([int(mean * 100), problems, rollouts, len(shape), same])
    one = chances(random, shape, mean, (trials, problems))
    other = one if same else chances(random, shape, mean, (trials, problems))
    yield from (
        random.binomial(rollouts, one) / rollouts - random.binomial(rollouts, other) / rollouts
    )


def told(test: Callable[[Chances], bool], trials: int, *case, same: bool) -> float:
    return sum(map(test, nulls(*case, trials, same))) / trials


@pytest.mark.parametrize("trials", [250, pytest.param(2_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("same", [True, False])
def test_of_two_models_alike_one_comparison_in_twenty_is_told_from_noise(
    same: bool, trials: int
) -> None:
    """At most, where few problems change; and not far fewer where they do."""
    for shape in ("hard and easy", "the same"):
        for case in NULLS:
            rate = told(lambda d: difference([d]).is_told, trials, shape, *case, same=same)
            assert rate <= most(0.05, trials), (shape, case, rate)
            if case == (0.4, 100, 16):
                assert rate >= least(0.05, trials)


def test_rollouts_taken_for_problems_would_be_caught() -> None:
    """The standard error of 16 times the problems, as if rollouts of one problem told as much as
    problems do.
    """

    def naive(d: Chances) -> bool:
        return abs(d.mean()) > 1.96 * d.std() / sqrt(16 * len(d))

    assert told(naive, 200, "hard and easy", 0.4, 100, 16, same=False) > most(0.05, 200)


def test_student_alone_would_be_caught_where_few_problems_changed() -> None:
    """If eight problems change by the same amount, seven fall alike in 7 % of tosses; if four do,
    all fall alike in 12 %.
    """
    random = np.random.default_rng(0)
    tosses = [[*d, *[0.0] * 26] for d in random.choice([-1.0, 1.0], size=(1_000, 4))]
    alone = np.mean([stats.ttest_1samp(d, 0).pvalue < 0.05 for d in tosses])
    assert alone > most(0.05, 1_000)
    assert not any(difference([d]).is_told for d in tosses[:50])


def test_differences_all_alike() -> None:
    """None at all tells nothing; a whole one on every problem tells."""
    assert not difference([[0.0] * 30]).is_told and difference([[0.0] * 30]).p == 1
    assert difference([[1.0] * 30]).is_told and difference([[-1.0] * 30, [-1.0] * 20]).is_told
    assert not difference([[1.0] * 5]).is_told  # five coins that fall alike


def test_differences_alike_within_each_set() -> None:
    """All of one set and none of another: within sets there is no variance."""
    found = difference([[0.0] * 30, [0.0] * 30, [1.0] * 40])
    assert (found.mean, found.method) == (
        0.4,
        GAFFKE,
    ) and 0.2 < found.lower < 0.4 < found.upper < 0.6
    assert found.is_told


def test_verdict_and_p_value_are_one() -> None:
    random = np.random.default_rng(0)
    for size in (6, 12, 40):
        for d in random.choice([-0.5, 0.0, 0.0, 0.0, 0.5, 1.0], size=(60, size)):
            found = difference([d.tolist()])
            if abs(found.p - 0.05) > 0.002:
                assert found.is_told == (found.p < 1 - intervals.LEVEL), d


def test_sets_of_one_problem_and_single_problems_do() -> None:
    assert (
        interval([[1.0], [0.5, 0.0] * 10]).lower < 0.29 < interval([[1.0], [0.5, 0.0] * 10]).upper
    )
    lower, upper, method = interval([[1.0]])
    assert (lower, upper, method) == (pytest.approx(0.025, abs=1e-3), 1.0, GAFFKE)
