"""The intervals over runs and problems hold as often as they say, by simulation with fixed seeds:
replicates answer the same problems, each in 16 rollouts, and differ by a run effect on the logit.
What is claimed fails a test that it holds for in one of 100,000 series of trials.
"""

from collections.abc import Iterator, Sequence
from math import sqrt

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from eval.grading import intervals, replicates
from eval.grading.replicates import Runs

Values = NDArray[np.float64]
SPREADS = {"none": (0.0, 0.0), "small": (0.12, 0.4), "large": (0.8, 0.4)}
"""Standard deviations of a run's effect, and of its effect on a single problem, on the logit."""
EASE = (-1.0, 2.0)
"""Mean and standard deviation of the problems' logits: pass@1 is near 35 %."""
SETS = {40: [15, 25], 300: [30, 30, 40, 200]}
SERIES = 20_261_130
"""Part of every simulation's seed."""
FEW_TRIALS = [150, pytest.param(2_000, marks=pytest.mark.slow)]


def least(share: float, trials: int) -> float:
    """The smallest share of trials that a chance of ``share`` is believed to give."""
    return float(stats.binom.ppf(1e-5, trials, share)) / trials


def most(share: float, trials: int) -> float:
    return float(stats.binom.isf(1e-5, trials, share)) / trials


def sampled(
    random: np.random.Generator, logits: Values, runs: int, spread: str, rollouts: int = 16
) -> Values:
    """Shares of right rollouts, of shape (runs, problems)."""
    of_run, of_both = SPREADS[spread]
    effects = random.normal(0, 1, (runs, 1)) * of_run
    effects = effects + random.normal(0, 1, (runs, len(logits))) * of_both
    return random.binomial(rollouts, 1 / (1 + np.exp(-logits - effects))) / rollouts


def truth(spread: str, shift: float = 0.0) -> float:
    """The mean over all runs and problems, by Gauss and Hermite's quadrature."""
    x, weights = np.polynomial.hermite_e.hermegauss(80)
    wide = sqrt(EASE[1] ** 2 + sum(s**2 for s in SPREADS[spread]))
    return float(weights / weights.sum() @ (1 / (1 + np.exp(-(EASE[0] + shift + wide * x)))))


def by_set(values: Values, sizes: Sequence[int]) -> Runs:
    ends = np.cumsum(sizes)[:-1]
    return [[part.tolist() for part in np.split(row, ends)] for row in values]


def trials_of(
    seed: str, problems: int, runs: Sequence[int], spread: str, trials: int
) -> Iterator[list[Runs]]:
    """Groups of runs that answer the same problems, the second 0.4 better on the logit."""
    words = f"{SERIES}{seed}{problems}{runs}{spread}"
    random = np.random.default_rng(list(map(int, words.encode())))
    for _ in range(trials):
        logits = random.normal(*EASE, problems)
        yield [
            by_set(sampled(random, logits + 0.4 * i, count, spread), SETS[problems])
            for i, count in enumerate(runs)
        ]


@pytest.mark.parametrize("trials", FEW_TRIALS)
@pytest.mark.parametrize("problems", SETS)
@pytest.mark.parametrize("spread", SPREADS)
def test_a_mean_over_runs_and_problems_is_covered(spread: str, problems: int, trials: int) -> None:
    goal = truth(spread)
    for count in (2, 3, 5):
        held = 0
        for (runs,) in trials_of("mean", problems, [count], spread, trials):
            lower, upper, _ = replicates.mean(runs)
            held += lower <= goal <= upper
        print(f"mean {spread} {problems} problems {count} runs: {held / trials:.4f}")
        assert held / trials >= least(0.93, trials), (count, held / trials)
        if count > 2:
            assert held / trials <= most(0.99, trials), (count, held / trials)


@pytest.mark.parametrize("trials", FEW_TRIALS)
@pytest.mark.parametrize("problems", SETS)
@pytest.mark.parametrize("spread", SPREADS)
def test_a_difference_of_two_groups_is_covered(spread: str, problems: int, trials: int) -> None:
    goal = truth(spread, 0.4) - truth(spread)
    for counts in ((2, 2), (3, 3), (5, 5), (2, 5)):
        held = 0
        for before, after in trials_of("difference", problems, counts, spread, trials):
            found = replicates.difference(before, after)
            held += found.lower <= goal <= found.upper
        print(f"difference {spread} {problems} problems {counts} runs: {held / trials:.4f}")
        assert held / trials >= least(0.93, trials), (counts, held / trials)
        if counts == (5, 5):
            assert held / trials <= most(0.99, trials), (counts, held / trials)


@pytest.mark.parametrize("trials", FEW_TRIALS)
@pytest.mark.parametrize("spread", ["none", "large"])
def test_a_difference_to_one_run_holds_for_that_run(spread: str, trials: int) -> None:
    """Its own effect on every problem is part of what it is, so its truth is its own."""
    held, random = 0, np.random.default_rng([SERIES, 5, len(spread)])
    for _ in range(trials):
        logits, effect = random.normal(*EASE, 300), random.normal(0, SPREADS[spread][0])
        one = random.binomial(16, 1 / (1 + np.exp(-logits - effect))) / 16
        group = sampled(random, logits, 3, spread)
        found = replicates.difference(by_set(one[None], SETS[300]), by_set(group, SETS[300]))
        x, weights = np.polynomial.hermite_e.hermegauss(80)
        alone = float(
            weights / weights.sum() @ (1 / (1 + np.exp(-(EASE[0] + effect + EASE[1] * x))))
        )
        held += found.lower <= truth(spread) - alone <= found.upper
    print(f"one run {spread}: {held / trials:.4f}")
    assert held / trials >= least(0.93, trials)


@pytest.mark.parametrize("trials", FEW_TRIALS)
@pytest.mark.parametrize("spread", SPREADS)
def test_the_spread_between_runs_is_covered_and_seldom_told_from_none(
    spread: str, trials: int
) -> None:
    for problems, sizes in SETS.items():
        for count in (2, 3, 5):
            held = told = 0
            # The run effects' standard deviation of the mean, in points, by simulation.
            many = np.random.default_rng(1).normal(0, SPREADS[spread][0], 2_000)
            x = np.random.default_rng(2).normal(EASE[0], sqrt(EASE[1] ** 2 + 0.4**2), 4_000)
            goal = float((1 / (1 + np.exp(-x[:, None] - many))).mean(0).std())
            for (runs,) in trials_of("spread", problems, [count], spread, trials):
                found = replicates.spread(runs)
                held += found.lower <= goal + 1e-12 and goal <= found.upper
                told += found.is_told
            print(f"spread {spread} {problems} {count}: {held / trials:.4f}, told {told / trials}")
            assert held / trials >= least(0.93, trials), (problems, count, held / trials)
            if spread == "none":
                assert told / trials <= most(0.025, trials)
        assert sum(sizes) == problems


@pytest.mark.parametrize("trials", [100, pytest.param(2_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("spread", SPREADS)
def test_of_equal_checkpoints_any_two_are_told_apart_in_at_most_one_of_twenty(
    spread: str, trials: int
) -> None:
    """Four checkpoints of the same runs, whose effects are partly those of the run; pass@1, and
    pass@16, whose differences are few and whole.
    """
    cases = [(40, 2, "pass@1"), (300, 3, "pass@1"), (300, 5, "pass@1")]
    cases += [(40, 2, "pass@16"), (300, 2, "pass@16"), (40, 3, "pass@16"), (300, 5, "pass@16")]
    for problems, count, metric in cases:
        random, errs = np.random.default_rng([SERIES, problems, count, len(spread), len(metric)]), 0
        for _ in range(trials):
            logits = random.normal(*EASE, problems)
            of_run = random.normal(0, SPREADS[spread][0], (count, 1))
            models = []
            for _ in range(4):
                of_both = random.normal(0, 1, (count, problems)) * SPREADS[spread][1]
                own = random.normal(0, SPREADS[spread][0] / 2, (count, 1))
                chance = 1 / (1 + np.exp(-logits - of_run - own - of_both))
                right = random.binomial(16, chance)
                values = right / 16 if metric == "pass@1" else (right > 0).astype(float)
                models.append(by_set(values, SETS[problems]))
            found = replicates.all_pairs(models).found.values()
            errs += any(pair.is_told for pair in found)
        print(f"pairs {metric} {spread} {problems} problems {count} runs: {errs / trials:.4f}")
        assert errs / trials <= most(0.05, trials), (problems, count, metric, errs / trials)


def test_naive_intervals_would_be_caught() -> None:
    """Over problems alone; over runs alone; and the normal quantile on the whole variance, as
    clustered standard errors have it, with two runs.
    """
    trials, goal = 150, truth("large")
    over_problems = clustered = over_few_runs = 0
    for (runs,) in trials_of("naive", 300, [2], "large", trials):
        means = [sum(map(sum, sets)) / 300 for sets in runs]
        within = intervals.interval(replicates.over_runs(runs))
        over_problems += within.lower <= goal <= within.upper
        variance = float(np.var(means, ddof=1)) / 2
        variance += intervals.variance_of_mean(replicates.over_runs(runs))[0]
        clustered += abs(sum(means) / 2 - goal) <= 1.96 * sqrt(variance)
    for (runs,) in trials_of("naive", 40, [5], "none", trials):
        means = np.array([sum(map(sum, sets)) / 40 for sets in runs])
        bounds = stats.ttest_1samp(means, 0).confidence_interval(0.95)
        over_few_runs += bounds.low <= truth("none") <= bounds.high
    for held in (over_problems, clustered, over_few_runs):
        assert held / trials < least(0.93, trials), held / trials


def test_of_problems_alike_it_is_students_t_over_runs() -> None:
    """Every problem of a run has the same difference: the problems tell nothing."""
    changes = np.array([0.02, 0.05, 0.03, 0.09])
    found = replicates.change([[[c] * 30, [c] * 20] for c in changes])
    bounds = stats.ttest_1samp(changes, 0).confidence_interval(0.95)
    # Problems without any variance have Gaffke's bound beside it.
    assert found.mean == pytest.approx(changes.mean()) and found.lower < bounds.low
    random = np.random.default_rng(3)
    noisy = changes[:, None] + random.normal(0, 1e-6, (4, 50))
    found = replicates.change(by_set(noisy, [30, 20]))
    assert (found.lower, found.upper) == pytest.approx((bounds.low, bounds.high), abs=1e-5)
    assert found.p == pytest.approx(stats.ttest_1samp(changes, 0).pvalue, rel=0.01)


def test_the_runs_of_either_group_count() -> None:
    """Runs alike in one group: the interval is Student's over the runs of the other."""
    random = np.random.default_rng(9)
    means = np.array([0.42, 0.45, 0.43, 0.49])
    varied = by_set(means[:, None] + random.normal(0, 1e-6, (4, 50)), [30, 20])
    alike = by_set(np.full((3, 50), 0.4), [30, 20])
    bounds = stats.ttest_1samp(means - 0.4, 0).confidence_interval(0.95)
    forth, back = replicates.difference(alike, varied), replicates.difference(varied, alike)
    assert (forth.lower, forth.upper) == pytest.approx((bounds.low, bounds.high), abs=1e-5)
    assert (back.lower, back.upper) == pytest.approx((-bounds.high, -bounds.low), abs=1e-5)


def test_runs_that_come_out_alike_by_chance_leave_the_interval_over_problems() -> None:
    """Two runs that changed as much, on other problems."""
    one, two = np.zeros(40), np.zeros(40)
    one[:9], two[9:18] = 1.0, 1.0
    one[20], two[21] = -1.0, -1.0
    found = replicates.change(by_set(np.stack([one, two]), [40]))
    alone = intervals.difference([((one + two) / 2).tolist()])
    assert found[:3] == pytest.approx(alone[:3]) and found.p == pytest.approx(alone.p, rel=0.01)


def test_of_runs_alike_it_is_the_interval_over_problems() -> None:
    values = np.random.default_rng(4).uniform(0, 1, 60)
    runs = by_set(np.array([values] * 3), [20, 40])
    assert replicates.mean(runs)[:2] == pytest.approx(intervals.interval(runs[0])[:2])
    moved = by_set(np.array([values * 0.8] * 2), [20, 40])
    alone = intervals.difference([(-0.2 * values[:20]).tolist(), (-0.2 * values[20:]).tolist()])
    found = replicates.difference(runs, moved)
    assert found[:3] == pytest.approx(alone[:3])
    assert replicates.spread(runs) == (0.0, 0.0, 0.0, 1.0)


def test_the_variances_are_those_of_the_two_way_table() -> None:
    """One set: mean squares of a two-way analysis of variance, by their definition."""
    y = np.random.default_rng(6).uniform(0, 1, (3, 25)) + np.array([[0.0], [0.4], [0.1]])
    rows, columns = y.mean(1, keepdims=True), y.mean(0, keepdims=True)
    rest = ((y - rows - columns + y.mean()) ** 2).sum() / (2 * 24)
    between = 25 * ((rows - y.mean()) ** 2).sum() / 2
    found = replicates.spread(by_set(y, [25]))
    assert found.deviation == pytest.approx(sqrt((between - rest) / 25))
    assert found.p == pytest.approx(stats.f.sf(between / rest, 2, 48))
    # Tukey and Williams's ends, by scipy's distributions.
    low = (between - rest * stats.f.ppf(0.975, 2, 48)) / 25 * 2 / stats.chi2.ppf(0.975, 2)
    high = (between - rest * stats.f.ppf(0.025, 2, 48)) / 25 * 2 / stats.chi2.ppf(0.025, 2)
    assert (found.lower, found.upper) == pytest.approx((sqrt(low), sqrt(high)))


def test_more_runs_and_the_same_figures_narrow_the_interval() -> None:
    values = np.random.default_rng(7).uniform(0, 1, (2, 40))
    two, four = by_set(values, [40]), by_set(np.concatenate([values, values]), [40])
    wide, narrow = replicates.mean(two), replicates.mean(four)
    assert narrow.upper - narrow.lower < 0.6 * (wide.upper - wide.lower)


def test_pairs_are_corrected_and_their_p_agrees_with_the_interval() -> None:
    random = np.random.default_rng(8)
    logits = random.normal(*EASE, 300)
    models = [
        by_set(sampled(random, logits + shift, 3, "small"), SETS[300])
        for shift in (0.0, 0.1, 0.5, 1.5)
    ]
    found = replicates.all_pairs(models)
    assert found.critical is None and found.between(0, 3).is_told
    for (i, j), pair in found.found.items():
        runs = [
            [[b - a for a, b in zip(s, t, strict=True)] for s, t in zip(x, y, strict=True)]
            for x, y in zip(models[i], models[j], strict=True)
        ]
        alone = replicates.change(runs)
        assert pair.mean == pytest.approx(alone.mean)
        assert pair.p == pytest.approx(min(1.0, 6 * alone.p), rel=0.01)
        assert pair.lower < alone.lower and alone.upper < pair.upper
        assert pair.is_told == (not pair.lower <= 0 <= pair.upper)


def test_no_difference_and_single_problems_do() -> None:
    same = [[[0.5] * 30]] * 2
    assert not replicates.change([[[0.0] * 30]] * 2).is_told
    assert replicates.difference(same, same).p == 1.0
    assert replicates.mean([[[1.0]], [[0.0]]])[:2] == pytest.approx((0.0, 1.0), abs=0.03)
    assert replicates.mean([[[1.0] * 30]] * 3).upper == 1.0
    assert replicates.mean([[[1.0], [0.5] * 5], [[0.5], [0.0] * 5]]).lower < 0.3
    assert replicates.spread([[[0.1] * 9], [[0.3] * 9]]).is_told
