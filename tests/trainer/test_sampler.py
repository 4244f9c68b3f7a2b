"""Every row once an epoch, whatever the ranks; micro-batches within the budget."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer import sampler


@given(st.integers(1, 200), st.integers(1, 33), st.integers(1, 3), st.integers(0, 5))
def test_every_row_is_trained_once_an_epoch(rows: int, batch: int, epochs: int, seed: int) -> None:
    steps = sampler.steps_per_epoch(rows, batch)
    for epoch in range(epochs):
        seen = [r for s in range(steps) for r in sampler.step_rows(epoch * steps + s, rows, batch, seed)]
        assert sorted(seen) == list(range(rows))
        assert len(sampler.step_rows(epoch * steps + steps - 1, rows, batch, seed)) == (rows % batch or batch)


def test_epochs_and_seeds_differ() -> None:
    orders = {tuple(sampler.epoch_order(50, seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


@given(st.lists(st.integers(1, 100), min_size=1, max_size=40), st.integers(1, 5), st.integers(100, 300))
def test_deal_keeps_every_row_within_the_budget(lengths: list[int], ranks: int, budget: int) -> None:
    plan = sampler.deal(dict(enumerate(lengths)), ranks, budget)
    assert len(plan) == ranks
    assert len({len(micros) for micros in plan}) == 1
    assert sorted(r for micros in plan for micro in micros for r in micro) == list(range(len(lengths)))
    assert all(sum(lengths[r] for r in micro) <= budget for micros in plan for micro in micros)


def test_a_rank_may_have_no_rows() -> None:
    assert sampler.deal({7: 10}, ranks=3, budget=100) == [[[7]], [[]], [[]]]


def test_a_row_over_the_budget_is_named() -> None:
    with pytest.raises(ValueError, match=r"row 3 has 101 tokens, train\.max_tokens_per_gpu is 100"):
        sampler.deal({3: 101}, ranks=2, budget=100)
