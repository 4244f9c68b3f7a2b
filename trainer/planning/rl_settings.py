"""Chooses verl's GRPO settings for a model, a cluster and the lengths of its rollouts: of those
that fit, the simplest of the fastest in the forecast.

Forecasts that are close do not count as different (``layouts.TOLERANCE``): then less offload and
fewer GPUs per engine win, because each needs something else of the machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from common.errors import UserError
from trainer.batching.flops import Shape
from trainer.planning import rl_memory, rl_time
from trainer.planning.cluster import Cluster
from trainer.planning.layouts import TOLERANCE, degrees
from trainer.planning.memory import GIB, Lines, Setup
from trainer.planning.planner import GRAIN, NEARLY
from trainer.planning.rl_memory import RESERVE, RlSetup
from trainer.planning.rl_time import RlLoad, RlTime

SHARES = tuple(percent / 100 for percent in range(90, 15, -5))
"""Values of gpu_memory_utilization to try: the highest that fits holds the most rollouts."""
BUDGETS = (1, 2, 4)
"""Token budgets to try, in rows of the longest length."""
OFFLOADS = ((False, False), (False, True), (True, True))
"""(param_offload, optimizer_offload) to try, least first. FSDP2's offload_policy, which needs
neither, comes last.
"""


@dataclass(frozen=True)
class RlForecast:
    """Settings that fit, with memory and time."""

    setup: RlSetup
    trainer: Lines
    """At the trainer's peak, while vLLM sleeps."""
    generation: Lines
    """While vLLM generates."""
    cache: float
    """Tokens that the cache of one engine holds."""
    in_flight: float
    """Rollouts of mean length that these are."""
    time: RlTime


def choose(shape: Shape, cluster: Cluster, load: RlLoad, temperature: float = 1.0) -> RlForecast:
    """Returns the simplest of the fastest settings that leave ``RESERVE`` free at every moment,
    from all degrees of sequence and tensor parallelism, token budgets and kinds of offload.

    Entropy is always in chunks: that costs no time. Raises UserError when nothing fits.
    """
    ways = [(False, *offload) for offload in OFFLOADS] + [(True, False, False)]
    found = [f for way in ways if (f := _fastest(shape, cluster, load, temperature, *way))]
    if not found:
        least = min(
            sum(rl_memory.training(shape, s).values())
            for s in _trainers(shape, cluster, load, temperature, True)
        )
        raise UserError(
            f"GRPO does not fit: with rows of {load.context:,} tokens on {cluster.ranks} GPUs the "
            f"trainer needs {least / GIB:.1f} GiB per GPU with all of its state on the host, vLLM "
            f"{rl_memory.rollout_weights(shape) / GIB:.1f} GiB for weights alone, and the GPU has "
            f"{cluster.gpu.memory / GIB:.1f}, of which {RESERVE / GIB:.0f} stay free. Take more "
            "GPUs (cluster.nodes, cluster.gpus_per_node) or larger ones (cluster.gpu), or a lower "
            "eval.max_tokens"
        )
    quickest = min(f.time.total for f in found)
    return next(f for f in found if f.time.total <= TOLERANCE * quickest)


def _fastest(
    shape: Shape,
    cluster: Cluster,
    load: RlLoad,
    temperature: float,
    policy: bool,
    param_offload: bool,
    optimizer_offload: bool,
) -> RlForecast | None:
    """Returns the fastest settings with one kind of offload; None if none fit.

    Trainer and vLLM take turns, so each side's settings are chosen for themselves.
    """
    trainers = [
        replace(s, param_offload=param_offload, optimizer_offload=optimizer_offload)
        for s in _trainers(shape, cluster, load, temperature, policy)
    ]
    trainers = [s for s in trainers if _fits(rl_memory.training(shape, s), cluster)]
    if not trainers:
        return None
    timed = {
        s: (
            rl_time.log_prob_seconds(shape, s, cluster, load),
            rl_time.update_seconds(shape, s, cluster, load),
        )
        for s in trainers
    }
    quickest = NEARLY * min(map(sum, timed.values()))
    trainer = min(
        (s for s in timed if sum(timed[s]) <= quickest),
        key=lambda s: sum(rl_memory.training(shape, s).values()),
    )
    engines = {
        s: rl_time.rollout_seconds(shape, s, cluster, load)
        for s in _engines(shape, cluster, load, trainer)
    }
    if not engines:
        return None
    setup = _simplest(engines)
    return RlForecast(
        setup,
        rl_memory.training(shape, setup),
        rl_memory.generation(shape, setup, cluster.gpu.memory),
        rl_memory.cache_tokens(shape, setup, cluster.gpu.memory),
        rl_time.in_flight(shape, setup, cluster, load),
        RlTime(engines[setup], *timed[trainer], rl_time.weight_seconds(shape, setup, cluster)),
    )


def _trainers(
    shape: Shape, cluster: Cluster, load: RlLoad, temperature: float, policy: bool
) -> Iterator[RlSetup]:
    """Yields the trainer's settings to try, without vLLM's. A budget over all ranks of a row holds
    the longest row.
    """
    for degree in degrees(shape, cluster):
        row = -(-load.context // (degree * GRAIN)) * GRAIN
        for update in BUDGETS:
            step = Setup(cluster.ranks, degree, update * row, "full", offload=policy)
            for log_probs in BUDGETS:
                yield RlSetup(step, log_probs * row, 1, 0.0, scaled_logits=temperature != 1.0)


def _engines(shape: Shape, cluster: Cluster, load: RlLoad, trainer: RlSetup) -> Iterator[RlSetup]:
    """Yields the trainer's settings with vLLM's: each degree of tensor parallelism that a node and
    the heads allow, with the highest share that fits, if its cache holds the longest row.
    """
    inside = replace(cluster, nodes=1)
    for degree in degrees(shape, inside):
        for share in SHARES:
            setup = replace(trainer, tensor_parallel=degree, utilization=share)
            if _fits(rl_memory.generation(shape, setup, cluster.gpu.memory), cluster):
                if rl_memory.cache_tokens(shape, setup, cluster.gpu.memory) >= load.context:
                    yield setup
                break


def _simplest(engines: Mapping[RlSetup, float]) -> RlSetup:
    """Returns the first, which has the fewest GPUs, that is about as fast as any."""
    quickest = min(engines.values())
    return next(s for s, seconds in engines.items() if seconds <= TOLERANCE * quickest)


def _fits(lines: Lines, cluster: Cluster) -> bool:
    return sum(lines.values()) + RESERVE <= cluster.gpu.memory
