"""Chooses among layouts: a short forecast step with little waiting between ranks.

A layout's balance is computed from the rows themselves; its step time depends on assumed bandwidths
and kernel speeds. So step times that are close do not outweigh a difference in balance.
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
"""Forecast step times within this factor of each other count as equal."""
BALANCED = 0.97
"""Balance (see ``balance.efficiency``) above which waiting is no reason to choose another layout.
"""

T = TypeVar("T", bound=Timing)


def eligible(layouts: Sequence[T]) -> list[T]:
    """Returns the layouts among which the step time decides.

    Among the layouts within the tolerance of the shortest step, these are the balanced ones or, if
    there are none, the best balanced one.
    """
    shortest = min(layout.step.total for layout in layouts)
    near = [layout for layout in layouts if layout.step.total <= TOLERANCE * shortest]
    enough = min(BALANCED, max(layout.balance for layout in near))
    return [layout for layout in near if layout.balance >= enough]


def choose_degree(
    shape: Shape, cluster: Cluster, steps: Sequence[Mapping[int, int]], tokens_per_gpu: int
) -> int:
    """Returns the sequence-parallel degree for ``steps`` of rows (row -> tokens), with full
    checkpointing.

    A group of ``degree`` ranks shares micro-batches of ``tokens_per_gpu`` x ``degree`` tokens.
    Raises UserError when a step has too few rows for every degree.
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
            f"{cluster.ranks} ranks are too many for batches of {rows} rows: use fewer, or a "
            "larger train.batch_size"
        )
    best = min(eligible(list(layouts.values())), key=lambda layout: layout.step.total)
    return next(degree for degree, layout in layouts.items() if layout is best)


def degrees(shape: Shape, cluster: Cluster) -> list[int]:
    """Returns the powers of two that divide ranks and query heads, and divide or are a multiple of
    the KV heads.
    """
    powers = [2**i for i in range(cluster.ranks.bit_length())]
    kv = shape.kv_heads
    return [
        d
        for d in powers
        if cluster.ranks % d == shape.heads % d == 0 and not max(d, kv) % min(d, kv)
    ]
