"""Chooses among layouts: a short forecast step with little waiting between ranks.

A layout's balance is computed from the rows themselves; its step time depends on assumed bandwidths
and kernel speeds. So step times that are close do not outweigh a difference in balance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from trainer.batching.flops import Shape
from trainer.planning.cluster import Cluster
from trainer.planning.step_time import Timing

TOLERANCE = 1.1
"""Forecast step times within this factor of each other count as equal."""
BALANCED = 0.97
"""Balance (see ``StepPlan.efficiency``) above which waiting is no reason to choose another layout.
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
