"""Chooses verl's GRPO settings for a model, a cluster and the lengths of its rollouts: the simplest
among the settings that fit and are fastest in the forecast.

Forecasts within ``planner.TOLERANCE`` count as equal; then less offload and fewer GPUs per engine
win, because offload needs host memory and PCIe, and larger engines need the link between GPUs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

from common.errors import UserError
from trainer.batching.flops import Shape
from trainer.planning import rl_memory, rl_time
from trainer.planning.cluster import Cluster, degrees
from trainer.planning.memory import GIB, Lines, Setup
from trainer.planning.planner import GRAIN, NEARLY, TOLERANCE
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
    """Tokens that one engine's cache holds."""
    in_flight: float
    """Rollouts of mean length that one engine's cache holds."""
    time: RlTime


def choose(shape: Shape, cluster: Cluster, load: RlLoad, temperature: float = 1.0) -> RlForecast:
    """Returns the simplest of the fastest settings that leave ``RESERVE`` free at every moment,
    from all degrees of sequence and tensor parallelism, token budgets and kinds of offload.

    Entropy is always computed in chunks, which costs no time. Raises UserError when nothing fits.
    """
    chooser = _Chooser(shape, cluster, load, temperature != 1.0)
    ways = [(False, *offload) for offload in OFFLOADS] + [(True, False, False)]
    found = [forecast for way in ways if (forecast := chooser.fastest(*way))]
    if not found:
        raise UserError(
            f"GRPO does not fit: with rows of {load.context:,} tokens on {cluster.ranks} GPUs the "
            f"trainer needs {chooser.least() / GIB:.1f} GiB per GPU with all of its state on the "
            f"host, vLLM {rl_memory.rollout_weights(shape) / GIB:.1f} GiB for weights alone, and "
            f"the GPU has {cluster.gpu.memory / GIB:.1f}, of which {RESERVE / GIB:.0f} stay free. "
            "Take more GPUs (cluster.nodes, cluster.gpus_per_node) or larger ones (cluster.gpu), "
            "or a lower eval.max_tokens"
        )
    quickest = min(f.time.total for f in found)
    return next(f for f in found if f.time.total <= TOLERANCE * quickest)


class _Chooser:
    """Tries settings. Trainer and vLLM take turns, so the settings of each are chosen
    separately.
    """

    def __init__(self, shape: Shape, cluster: Cluster, load: RlLoad, scaled: bool) -> None:
        self._shape, self._cluster, self._load, self._scaled = shape, cluster, load, scaled
        self._updates: dict[Setup, float] = {}
        self._passes: dict[Setup, float] = {}

    def fastest(
        self, policy: bool, param_offload: bool, optimizer_offload: bool
    ) -> RlForecast | None:
        """Returns the fastest settings with one kind of offload; None if none fit."""
        shape, cluster, load = self._shape, self._cluster, self._load
        tried = [
            replace(s, param_offload=param_offload, optimizer_offload=optimizer_offload)
            for s in self._trainers(policy)
        ]
        timed = {s: self._trainer_seconds(s) for s in tried if self._fits(self._training(s))}
        if not timed:
            return None
        quickest = NEARLY * min(map(sum, timed.values()))
        trainer = min(
            (s for s, seconds in timed.items() if sum(seconds) <= quickest),
            key=lambda s: sum(self._training(s).values()),
        )
        engines = {
            s: rl_time.rollout_seconds(shape, s, cluster, load) for s in self._engines(trainer)
        }
        if not engines:
            return None
        # The first one has the fewest GPUs per engine.
        quickest = TOLERANCE * min(engines.values())
        setup = next(s for s, seconds in engines.items() if seconds <= quickest)
        return RlForecast(
            setup,
            self._training(setup),
            self._generation(setup),
            rl_memory.cache_tokens(shape, setup, cluster.gpu.memory),
            rl_time.in_flight(shape, setup, cluster, load),
            RlTime(engines[setup], *timed[trainer], rl_time.weight_seconds(shape, setup, cluster)),
        )

    def least(self) -> float:
        """Returns the bytes per GPU of the smallest trainer."""
        return min(sum(self._training(s).values()) for s in self._trainers(True))

    def _trainers(self, policy: bool) -> Iterator[RlSetup]:
        """Yields the trainer's settings to try, without vLLM's. A budget over all ranks of a row
        holds the longest row.
        """
        ranks = self._cluster.ranks
        for degree in degrees(self._shape, self._cluster):
            row = -(-self._load.context // (degree * GRAIN)) * GRAIN
            for update, log_probs in product(BUDGETS, BUDGETS):
                step = Setup(ranks, degree, update * row, "full", offload=policy)
                yield RlSetup(step, log_probs * row, 1, 0.0, scaled_logits=self._scaled)

    def _engines(self, trainer: RlSetup) -> Iterator[RlSetup]:
        """Yields the trainer's settings with vLLM's: each degree of tensor parallelism that a node
        and the heads allow, with the highest share that fits, if its cache holds the longest row.
        """
        memory = self._cluster.gpu.memory
        for degree in degrees(self._shape, replace(self._cluster, nodes=1)):
            tried = (
                replace(trainer, tensor_parallel=degree, utilization=share) for share in SHARES
            )
            setup = next((s for s in tried if self._fits(self._generation(s))), None)
            if setup is not None:
                held = rl_memory.cache_tokens(self._shape, setup, memory)
                if held >= self._load.context:
                    yield setup

    def _training(self, setup: RlSetup) -> Lines:
        return rl_memory.training(self._shape, setup)

    def _generation(self, setup: RlSetup) -> Lines:
        return rl_memory.generation(self._shape, setup, self._cluster.gpu.memory)

    def _fits(self, lines: Lines) -> bool:
        return sum(lines.values()) + RESERVE <= self._cluster.gpu.memory

    def _trainer_seconds(self, setup: RlSetup) -> tuple[float, float]:
        """Returns the seconds of old log-probabilities and of the update, each computed once."""
        step, asked = setup.training, (self._shape, setup, self._cluster, self._load)
        passing = replace(step, tokens=setup.log_prob_tokens)
        if passing not in self._passes:
            self._passes[passing] = rl_time.log_prob_seconds(*asked)
        if step not in self._updates:
            self._updates[step] = rl_time.update_seconds(*asked)
        return self._passes[passing], self._updates[step]
