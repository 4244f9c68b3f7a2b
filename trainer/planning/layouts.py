"""Which of several layouts is taken: a short forecast step in which few ranks wait.

How well a layout is balanced is computed from the rows themselves; how long its step takes rests on assumed links and
kernels. So forecasts that are close do not outweigh a difference in balance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from common.errors import UserError
from trainer.batching.balance import plan_step
from trainer.batching.flops import Shape
from trainer.planning.cluster import Cluster
from trainer.planning.memory import Setup
from trainer.planning.step_time import Timing, timing

TOLERANCE = 1.1
"""Forecast steps within this factor of each other are not told apart."""
BALANCED = 0.97
"""Mean over maximum of the groups' FLOPs above which waiting is no reason for another layout."""

T = TypeVar("T", bound=Timing)


def eligible(layouts: Sequence[T]) -> list[T]:
    """The layouts among which the step time decides.

    Of those within the tolerance of the shortest step, the ones that are balanced, or where none is, the best
    balanced one.
    """
    shortest = min(layout.step.total for layout in layouts)
    near = [layout for layout in layouts if layout.step.total <= TOLERANCE * shortest]
    enough = min(BALANCED, max(layout.balance for layout in near))
    return [layout for layout in near if layout.balance >= enough]


def choose_degree(shape: Shape, cluster: Cluster, steps: Sequence[Mapping[int, int]], tokens_per_gpu: int) -> int:
    """The sequence-parallel degree for ``steps`` of rows (row -> tokens), with full checkpointing.

    A group of that many ranks shares micro-batches of ``tokens_per_gpu`` times as many tokens. Raises UserError
    when a step has too few rows for every degree.
    """
    layouts = {}
    rows = min(map(len, steps))
    for degree in degrees(shape, cluster):
        groups = cluster.ranks // degree
        if groups > rows:
            continue
        plans = [plan_step(lengths, groups, tokens_per_gpu * degree, shape) for lengths in steps]
        setup = Setup(cluster.ranks, degree, tokens_per_gpu, "full")
        layouts[degree] = timing(shape, setup, cluster, plans, steps)
    if not layouts:
        raise UserError(
            f"{cluster.ranks} ranks are too many for batches of {rows} rows: use fewer, or a larger train.batch_size"
        )
    best = min(eligible(list(layouts.values())), key=lambda layout: layout.step.total)
    return next(degree for degree, layout in layouts.items() if layout is best)


def degrees(shape: Shape, cluster: Cluster) -> list[int]:
    """Powers of two that divide the ranks and the query heads, and divide or repeat the key-value heads."""
    powers = [2**i for i in range(cluster.ranks.bit_length())]
    kv = shape.kv_heads
    return [d for d in powers if cluster.ranks % d == shape.heads % d == 0 and not max(d, kv) % min(d, kv)]
