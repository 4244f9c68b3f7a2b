"""Which ranks of a step count as slow."""

from statistics import median

import numpy as np

from trainer.loop.gather_metrics import slow_ranks


def by_definition(seconds: list[float], tokens: list[float]) -> list[tuple[int, float]]:
    """Every judged rank beside the median of all other judged ranks, without a shortcut."""
    judged = [r for r, n in enumerate(tokens) if 2 * n * len(tokens) > sum(tokens)]
    found = []
    for rank in judged:
        others = [seconds[r] / tokens[r] for r in judged if r != rank]
        if others and seconds[rank] / tokens[rank] > 1.15 * median(others):
            found.append((rank, round(seconds[rank] / tokens[rank] / median(others), 3)))
    return found


def test_closed_examples() -> None:
    assert slow_ranks([1, 1, 1.5, 1], [100] * 4) == [(2, 1.5)]
    assert slow_ranks([1, 1, 1.14, 1], [100] * 4) == []
    assert slow_ranks([2, 1, 1.5, 1, 1], [100] * 5) == [(0, 2.0), (2, 1.5)]
    assert slow_ranks([1, 2, 1, 1], [100, 200, 100, 100]) == [], "twice the tokens, no slow rank"


def test_equal_ranks_and_ranks_alone_are_not_slow() -> None:
    assert slow_ranks([1.0] * 8, [50] * 8) == []
    assert slow_ranks([9.0], [50]) == []
    assert slow_ranks([0.0] * 4, [50] * 4) == []
    assert slow_ranks([0.0, 0.0], [0, 0]) == []


def test_of_two_ranks_the_slower_one_is_slow() -> None:
    assert slow_ranks([1.0, 1.2], [100, 100]) == [(1, 1.2)]
    assert slow_ranks([1.2, 1.0], [100, 100]) == [(0, 1.2)]


def test_a_rank_of_few_tokens_is_neither_slow_nor_a_measure() -> None:
    assert slow_ranks([1, 1, 1, 5], [100, 100, 100, 40]) == []
    assert slow_ranks([1, 1, 1, 5], [100, 100, 100, 60]) == [(3, 8.333)]
    # With the quick ranks of few tokens the median would halve.
    assert slow_ranks([1, 1, 1, 0.1, 0.1, 0.1], [100, 100, 100, 20, 20, 20]) == []


def test_random_rates_agree_with_the_definition() -> None:
    draw = np.random.default_rng(0)
    slow = 0
    for _ in range(2000):
        ranks = int(draw.integers(1, 12))
        tokens = draw.integers(1, 1000, ranks).tolist()
        rates = np.exp(draw.choice([0.02, 0.1, 0.5]) * draw.standard_normal(ranks))
        seconds = (rates * tokens).tolist()
        expected = by_definition(seconds, tokens)
        assert slow_ranks(seconds, tokens) == expected
        slow += len(expected)
    assert slow > 500
