"""The test of all pairs errs as often as it says, by simulation with fixed seeds, and the
correction is what keeps it from erring more often.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from scipy import stats

from eval.grading import simultaneous
from eval.grading.intervals import difference
from eval.grading.simultaneous import AllPairs, all_pairs

Models = list[list[list[float]]]
"""Model -> set -> problem."""


def most(share: float, trials: int) -> float:
    """The largest share of trials that a chance of ``share`` is believed to give: once in 100,000
    series it is larger.
    """
    return float(stats.binom.isf(1e-5, trials, share)) / trials


def nulls(
    metric: str, count: int, sizes: Sequence[int], trials: int, same: bool
) -> Iterator[Models]:
    """Figures of ``count`` equal models, which are correlated: they share how hard a problem is.
    ``same``: their chances are equal on every problem; otherwise their means alone are.
    """
    random = np.random.default_rng([len(metric), count, *sizes, same])
    for _ in range(trials):
        hardness = random.normal(-1.0, 1.5, sum(sizes))
        noise = 0.0 if same else random.normal(0, 1.0, (count, sum(sizes)))
        chance = np.broadcast_to(1 / (1 + np.exp(-hardness - noise)), (count, sum(sizes)))
        right = random.binomial(4, chance)
        values = {"any": (right > 0).astype(float), "pass@1": right / 4}[metric]
        parts = np.split(values, np.cumsum(sizes)[:-1], axis=1)
        yield [[part[m].tolist() for part in parts] for m in range(count)]


def errs(found: AllPairs) -> bool:
    return any(pair.is_told for pair in found.found.values())


def uncorrected(models: Models) -> bool:
    """Whether the paired test alone tells the model that came out best from any other."""
    best = max(models, key=lambda m: sum(map(sum, m)))
    return any(
        difference(
            [[b - a for a, b in zip(x, y, strict=True)] for x, y in zip(m, best, strict=True)]
        ).is_told
        for m in models
        if m is not best
    )


def rate(test: Callable[[Models], bool], *case, trials: int, same: bool) -> float:
    return sum(map(test, nulls(*case, trials, same))) / trials


@pytest.mark.parametrize("trials", [120, pytest.param(2_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("same", [True, False])
def test_of_equal_models_any_two_are_told_apart_in_at_most_one_of_twenty(
    same: bool, trials: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simultaneous, "DRAWS", 1_000)
    for case in (("any", 3, [30]), ("any", 6, [30, 40]), ("pass@1", 6, [30, 40])):
        found = rate(lambda m: errs(all_pairs(m)), *case, trials=trials, same=same)
        assert found <= most(0.05, trials), (case, found)


def test_without_the_correction_the_best_of_six_would_be_told_from_an_equal_one() -> None:
    found = rate(uncorrected, "pass@1", 6, [30, 40], trials=120, same=False)
    assert found > most(0.05, 120)


def test_intervals_hold_all_differences_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models that differ: the true differences are those of their chances' means."""
    monkeypatch.setattr(simultaneous, "DRAWS", 1_000)
    random, shifts, held = np.random.default_rng(5), np.array([0.0, 0.1, 0.25, 0.3]), 0
    for _ in range(150):
        problem = random.uniform(-0.3, 0.3, 60)
        values = random.binomial(16, 0.4 + problem + shifts[:, None] * 0.9) / 16
        found = all_pairs([[row[:20].tolist(), row[20:].tolist()] for row in values])
        held += all(
            pair.lower <= 0.9 * (shifts[j] - shifts[i]) <= pair.upper
            for (i, j), pair in found.found.items()
        )
    assert held / 150 >= 1 - most(0.05, 150)


def test_of_two_models_in_one_set_it_is_nearly_the_paired_t_test() -> None:
    random = np.random.default_rng(1)
    a, b = random.uniform(0, 0.9, (2, 80))
    b = np.clip(0.5 * a + 0.5 * b + 0.03, 0, 1)
    pair = all_pairs([[a.tolist()], [b.tolist()]]).between(0, 1)
    alone = difference([(b - a).tolist()])
    assert pair.mean == pytest.approx(alone.mean)
    assert pair.p == pytest.approx(alone.p, abs=0.01)
    assert (pair.lower, pair.upper) == pytest.approx((alone.lower, alone.upper), abs=0.005)


def test_more_models_widen_the_interval_and_the_reverse_pair_has_the_other_sign() -> None:
    random = np.random.default_rng(2)
    values = [[random.uniform(0, 1, 40).tolist()] for _ in range(6)]
    two, six = all_pairs(values[:2]), all_pairs(values)
    assert six.critical > two.critical + 0.5
    assert six.between(0, 1).p > two.between(0, 1).p
    forth, back = six.between(2, 4), six.between(4, 2)
    assert back == (-forth.mean, -forth.upper, -forth.lower, forth.p, forth.error)


def test_few_changed_problems_tell_nothing_and_many_do() -> None:
    """Five coins fall alike by chance in 6 % of tosses, ten in 0.2 %."""
    same = [[0.0] * 40]
    assert not all_pairs([same, [[1.0] * 5 + [0.0] * 35]]).between(0, 1).is_told
    assert all_pairs([same, [[1.0] * 10 + [0.0] * 30]]).between(0, 1).is_told


def test_differences_without_spread() -> None:
    """Models alike are not told apart; one that is better on every problem is, unless they are
    few.
    """
    alike = all_pairs([[[0.5] * 30]] * 2).between(0, 1)
    assert alike == (0.0, -1.0, 1.0, 1.0, 0.0)
    assert all_pairs([[[0.0] * 30, [0.0] * 40], [[0.0] * 30, [1.0] * 40]]).between(0, 1).is_told
    few = all_pairs([[[0.0] * 3], [[1.0] * 3]])
    assert not few.between(0, 1).is_told and few.critical == float("inf")
    assert not all_pairs([[[0.0]], [[1.0]]]).between(0, 1).is_told
