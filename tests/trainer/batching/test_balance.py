"""Micro-batches: every row once within the budget, the same plan whoever asks, close to the best
there is.
"""

import random
from collections.abc import Iterator
from statistics import fmean

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.errors import UserError
from tests.bench.bench_balance import draw, ours, ray
from trainer.batching.balance import MICRO_STEP, StepPlan, plan_step, row_flops
from trainer.batching.flops import Shape, training_flops

# Attention outweighs the rest from four tokens on, and is next to nothing.
ATTENTION = Shape(1, 1, 1, 4, 1, 1, 1, tied=True)
DENSE = Shape(1, 64, 64, 1, 1, 1, 1, tied=True)

shapes = st.sampled_from([ATTENTION, DENSE])
rows = st.dictionaries(st.integers(0, 10_000), st.integers(1, 100), min_size=1, max_size=40)
few_rows = st.dictionaries(st.integers(0, 99), st.integers(1, 100), min_size=1, max_size=6)
groups, budgets = st.integers(1, 6), st.integers(100, 300)


def planned(micro_batches: list, lengths: dict[int, int], shape: Shape) -> StepPlan:
    return StepPlan.of(micro_batches, lengths, row_flops(lengths, shape))


def cost(plan: StepPlan) -> float:
    """The step's FLOPs in lockstep over its mean, and what its micro-steps are charged."""
    return 1 / plan.efficiency + MICRO_STEP * plan.micro_steps


def spread_by_tokens(lengths: dict[int, int], groups: int, budget: int, shape: Shape) -> StepPlan:
    """Longest first into the emptiest of the fewest micro-batches that hold all rows."""
    for micros in range(1, len(lengths) + 1):
        bins: list[list[int]] = [[] for _ in range(micros * groups)]
        tokens = [0] * len(bins)
        for row in sorted(lengths, key=lambda r: (-lengths[r], r)):
            emptiest = tokens.index(min(tokens))
            bins[emptiest].append(row)
            tokens[emptiest] += lengths[row]
        if max(tokens) <= budget:
            return planned([bins[group::groups] for group in range(groups)], lengths, shape)
    raise AssertionError("a row is longer than the budget")


def partitions(rows: list[int]) -> Iterator[list[list[int]]]:
    """Every way to split rows into bins."""
    if not rows:
        yield []
        return
    for rest in partitions(rows[1:]):
        yield [[rows[0]], *rest]
        for i, part in enumerate(rest):
            yield [*rest[:i], [rows[0], *part], *rest[i + 1 :]]


def least_cost(lengths: dict[int, int], groups: int, budget: int, shape: Shape) -> float:
    """``cost`` of the best plan there is: every partition, its bins sorted into micro-steps."""
    flops = dict(zip(lengths, training_flops(shape, list(lengths.values())).tolist(), strict=True))
    mean, costs = sum(flops.values()) / groups, []
    for bins in partitions(list(lengths)):
        if all(sum(lengths[row] for row in members) <= budget for members in bins):
            slowest = sorted(
                (sum(flops[row] for row in members) for members in bins), reverse=True
            )[::groups]
            costs.append(sum(slowest) / mean + MICRO_STEP * len(slowest))
    return min(costs)


@given(rows, groups, budgets, shapes)
def test_every_row_once_within_the_budget(
    lengths: dict[int, int], groups: int, budget: int, shape: Shape
) -> None:
    step = plan_step(lengths, groups, budget, shape)
    plan = step.micro_batches
    assert len(plan) == groups
    assert len({len(micros) for micros in plan}) == 1
    assert sorted(row for micros in plan for rows in micros for row in rows) == sorted(lengths)
    assert all(sum(lengths[row] for row in rows) <= budget for micros in plan for rows in micros)
    assert step.tokens == sum(lengths.values())
    assert step.flops == training_flops(shape, list(lengths.values())).sum()
    assert all(any(micros[m] for micros in plan) for m in range(len(plan[0]))), (
        "a micro-step without rows"
    )


@given(rows, groups, budgets, shapes, st.randoms())
def test_the_order_of_the_rows_does_not_matter(
    lengths: dict[int, int], groups: int, budget: int, shape: Shape, rng: random.Random
) -> None:
    shuffled = list(lengths.items())
    rng.shuffle(shuffled)
    plan, again = (plan_step(dict(rows), groups, budget, shape) for rows in (lengths, shuffled))
    assert plan.micro_batches == again.micro_batches and plan.efficiency == again.efficiency


@given(rows, groups, budgets, shapes)
@example(dict(enumerate([100, 25, 15, 45, 55, 35])), 2, 150, DENSE)
def test_never_worse_than_spreading_tokens(
    lengths: dict[int, int], groups: int, budget: int, shape: Shape
) -> None:
    plan = plan_step(lengths, groups, budget, shape)
    assert cost(plan) <= cost(spread_by_tokens(lengths, groups, budget, shape)) * (1 + 1e-9)


@given(few_rows, st.integers(1, 4), budgets, shapes)
def test_close_to_the_best_plan(
    lengths: dict[int, int], groups: int, budget: int, shape: Shape
) -> None:
    plan = plan_step(lengths, groups, budget, shape)
    assert cost(plan) <= 4 / 3 * least_cost(lengths, groups, budget, shape)


def test_small_steps_are_mostly_planned_best() -> None:
    rng, best = random.Random(0), 0
    for _ in range(200):
        lengths = {row: rng.randint(1, 100) for row in range(6)}
        case = (
            lengths,
            rng.randint(1, 4),
            rng.choice([100, 150, 300]),
            rng.choice([ATTENTION, DENSE]),
        )
        best += cost(plan_step(*case)) <= least_cost(*case) * (1 + 1e-9)
    assert best >= 190


def test_rows_of_like_length_share_a_micro_step() -> None:
    lengths = {0: 100, 1: 100, 2: 60, 3: 60, 4: 40, 5: 40}
    plan = plan_step(lengths, 2, 100, ATTENTION)
    assert plan.micro_batches == [[[0], [2, 4]], [[1], [3, 5]]]


def test_another_micro_step_has_to_pay() -> None:
    lengths = dict(enumerate([40, 85, 45, 20, 25, 75]))
    one = plan_step(lengths, 2, 150, ATTENTION)
    two = planned([[[1], [2]], [[5, 4, 3], [0]]], lengths, ATTENTION)
    assert one.micro_steps == 1
    gain = 1 / one.efficiency - 1 / two.efficiency
    assert 0 < gain < MICRO_STEP


def test_a_group_may_have_no_rows() -> None:
    assert plan_step({7: 10}, 3, 100, DENSE).micro_batches == [[[7]], [[]], [[]]]


def test_efficiency_is_mean_over_slowest() -> None:
    lengths = {0: 30, 1: 30, 2: 10, 3: 10}
    assert planned([[[0], [2]], [[1], [3]]], lengths, DENSE).efficiency == 1
    total, long = training_flops(DENSE, list(lengths.values())).sum(), training_flops(DENSE, 30)
    uneven = planned([[[0], [1]], [[2], [3]]], lengths, DENSE)
    assert uneven.efficiency == pytest.approx(total / 2 / (2 * long))


def test_a_row_over_the_budget_is_named() -> None:
    with pytest.raises(
        UserError, match=r"row 3 has 101 tokens, .* holds 100 .*raise train\.max_tokens_per_gpu"
    ):
        plan_step({2: 50, 3: 101}, 2, 100, DENSE)


@pytest.mark.parametrize(
    "clip, batch, degree, least", [(16, 64, 1, 0.91), (16, 128, 1, 0.97), (32, 128, 2, 0.99)]
)
def test_balance_of_long_think_rows_on_16_groups(
    clip: int, batch: int, degree: int, least: float
) -> None:
    """Figures of bench_balance on fewer draws."""
    steps = [draw(clip * 1024, batch, seed) for seed in range(10)]
    plans = [ours(step, 16, clip * 1024 * degree) for step in steps]
    assert fmean(plan.efficiency for plan in plans) >= least


def test_many_moves_stay_within_the_budget() -> None:
    for lengths in (draw(16_384, 256, seed) for seed in range(10)):
        assert (
            max(
                sum(map(lengths.get, rows))
                for micros in ours(lengths, 16, 16_384).micro_batches
                for rows in micros
            )
            <= 16_384
        )


@pytest.mark.parametrize("clip, batch", [(16_384, 64), (32_768, 64), (16_384, 128)])
def test_balance_is_above_the_ray_trainers_in_no_more_micro_steps(clip: int, batch: int) -> None:
    """verl's own code on the same steps, 16 ranks."""
    steps = [draw(clip, batch, seed) for seed in range(10)]
    plans, peers = [ours(step, 16, clip) for step in steps], [ray(step, 16, clip) for step in steps]
    for plan, peer in zip(plans, peers, strict=True):
        assert plan.efficiency >= peer.efficiency
    assert fmean(plan.micro_steps for plan in plans) <= fmean(peer.micro_steps for peer in peers)
