"""``warmstart plan``: forecasts a recipe's memory and time on its cluster and recommends a layout.

Everything is calculated: ``memory`` counts bytes, ``step_time`` seconds; ``hardware`` and
``cluster`` hold the assumptions about GPUs and links. No GPU is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeVar

import numpy as np
from omegaconf import DictConfig

from common.errors import UserError
from trainer.batching import sampler
from trainer.batching.balance import StepPlan, plan_step
from trainer.batching.flops import Shape, training_flops
from trainer.planning import memory, qlora_memory
from trainer.planning.cluster import Cluster, degrees
from trainer.planning.memory import Lines, Setup
from trainer.planning.step_time import Timing, timing
from trainer.planning.workload import Lengths, cluster_of, lengths_of, shape_of, total_steps

OFFLOAD = "verl.engine.offload_policy"
"""Key that keeps weights, gradients and AdamW on the host. verl's param_offload and
optimizer_offload are not considered: they load everything back for the step, so they do not lower
its peak.
"""
STEPS = 12
"""Number of steps of the first epoch that are packed and timed for each layout."""
CHECKPOINTING = ("none", "selective", "full")
GRAIN = 512
"""Token budgets are multiples of this."""
TOLERANCE = 1.1
"""Forecast step times within this factor of each other count as equal, because bandwidths and
kernel speeds are assumed; a layout's balance is computed from the rows themselves.
"""
BALANCED = 0.97
"""Balance (see ``StepPlan.efficiency``) above which waiting does not count against a layout."""
NEARLY = 1.02
"""Among eligible layouts within this factor of the fastest, the one that needs the least memory is
recommended.
"""


T = TypeVar("T", bound=Timing)


@dataclass(frozen=True)
class Forecast(Timing):
    """One layout's memory per GPU in bytes, and its mean step."""

    setup: Setup
    lines: Lines
    fits: bool

    @property
    def needed(self) -> float:
        """Bytes needed per GPU."""
        return sum(self.lines.values())

    @property
    def overrides(self) -> str:
        """Overrides of the recipe that choose this layout."""
        setup = self.setup
        keys = {
            "train.sequence_parallel": setup.sequence_parallel,
            "train.max_tokens_per_gpu": setup.tokens,
            "train.checkpointing": setup.checkpointing,
        }
        return " ".join(f"{key}={value}" for key, value in keys.items()) + (
            f" {OFFLOAD}=true" if setup.offload else ""
        )


class Planner:
    """Forecasts for one recipe: its model, rows, batch and cluster."""

    def __init__(self, config: DictConfig, lengths: Lengths | None = None) -> None:
        """Raises UserError for a QLoRA on several GPUs, and when the model's shape or the rows are
        not known.
        """
        if config.train.lora_rank and config.cluster.nodes * config.cluster.gpus_per_node > 1:
            raise UserError("a QLoRA runs on one GPU: set cluster.nodes=1 cluster.gpus_per_node=1")
        self.config = config
        self.shape: Shape = shape_of(config)
        self.lengths: Lengths = lengths or lengths_of(config)
        self.cluster: Cluster = cluster_of(config)
        self.steps = self._sample()
        self.plans: dict[tuple[int, int], list[StepPlan]] = {}

    def _sample(self) -> list[dict[int, int]]:
        """Returns the rows (index -> tokens) of steps spread over the first epoch, as the sampler
        will draw them.
        """
        train, rows = self.config.train, len(self.lengths.tokens)
        last = max(0, rows // train.batch_size - 1)
        chosen = np.unique(np.linspace(0, last, STEPS).astype(int))
        drawn = [
            sampler.step_rows(int(step), rows, train.batch_size, train.seed) for step in chosen
        ]
        return [{int(row): int(self.lengths.tokens[row]) for row in step} for step in drawn]

    @property
    def compute(self) -> int:
        """Bytes of the compute dtype."""
        return {"bf16": 2, "fp32": 4}[self.config.train.precision]

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the run."""
        return total_steps(self.config, len(self.lengths.tokens))

    def hours(self, seconds: float) -> float:
        """Returns the hours of the run at ``seconds`` per step."""
        return self.total_steps * seconds / 3600

    @property
    def flops(self) -> float:
        """Mean training FLOPs per step, without recomputation."""
        return float(
            np.mean([training_flops(self.shape, list(step.values())).sum() for step in self.steps])
        )

    @property
    def tokens(self) -> float:
        """Mean tokens per step."""
        return float(np.mean([sum(step.values()) for step in self.steps]))

    def allows(self, degree: int) -> bool:
        """Returns whether the model, the cluster and the batch allow a sequence-parallel degree."""
        groups = self.cluster.ranks // degree
        return (
            degree in degrees(self.shape, self.cluster) and groups <= self.config.train.batch_size
        )

    def own(self) -> Forecast | None:
        """Returns the forecast of the recipe's own layout; None if its degree is not allowed."""
        train = self.config.train
        if not self.allows(train.sequence_parallel):
            return None
        return self.forecast(
            self._setup(
                train.sequence_parallel,
                train.max_tokens_per_gpu,
                train.checkpointing,
                self.config.verl.engine.offload_policy,
            )
        )

    def layouts(self) -> Iterator[Forecast]:
        """Yields forecasts for every allowed degree, several budgets, every checkpointing, with and
        without offload.
        """
        train, longest = self.config.train, self.config.data.max_length
        for degree in filter(self.allows, degrees(self.shape, self.cluster)):
            least = -(-longest // (degree * GRAIN)) * GRAIN
            budgets = sorted({least, 2 * least, 4 * least, max(least, train.max_tokens_per_gpu)})
            offloads = (False,) if self.shape.lora_rank else (False, True)
            for budget, checkpointing, offload in product(budgets, CHECKPOINTING, offloads):
                yield self.forecast(self._setup(degree, budget, checkpointing, offload))

    def forecast(self, setup: Setup) -> Forecast:
        """Returns memory and mean step of one layout. Raises UserError when a row does not fit the
        budget.
        """
        count = qlora_memory.peak if self.shape.lora_rank else memory.peak
        lines = memory.on_gpu(count(self.shape, setup))
        timed = timing(self.shape, setup, self.cluster, self._plans(setup), self.steps)
        return Forecast(
            timed.step, timed.balance, setup, lines, sum(lines.values()) <= self.cluster.gpu.memory
        )

    def _plans(self, setup: Setup) -> list[StepPlan]:
        key = setup.sequence_parallel, setup.tokens
        if key not in self.plans:
            groups, budget = (
                self.cluster.ranks // setup.sequence_parallel,
                setup.tokens * setup.sequence_parallel,
            )
            self.plans[key] = [plan_step(step, groups, budget, self.shape) for step in self.steps]
        return self.plans[key]

    def _setup(self, degree: int, budget: int, checkpointing: str, offload: bool) -> Setup:
        train = self.config.train
        sdpa = train.attention == "sdpa" or train.precision == "fp32"
        return Setup(
            self.cluster.ranks,
            degree,
            budget,
            checkpointing,
            offload,
            self.compute,
            sdpa,
            fused=train.fused_optimizer,
            compiled=train.compile,
            liger=train.liger,
        )


def eligible(layouts: Sequence[T]) -> list[T]:
    """Returns the layouts among which the step time decides.

    Among the layouts within the tolerance of the shortest step, these are the balanced ones or, if
    there are none, the best balanced one.
    """
    shortest = min(layout.step.total for layout in layouts)
    near = [layout for layout in layouts if layout.step.total <= TOLERANCE * shortest]
    enough = min(BALANCED, max(layout.balance for layout in near))
    return [layout for layout in near if layout.balance >= enough]


def recommend(layouts: list[Forecast]) -> Forecast | None:
    """Returns the fastest eligible layout that fits, or one nearly as fast with less memory; None
    if no layout fits.
    """
    fitting = [layout for layout in layouts if layout.fits]
    if not fitting:
        return None
    choices = eligible(fitting)
    fastest = min(layout.step.total for layout in choices)
    return min((f for f in choices if f.step.total <= NEARLY * fastest), key=lambda f: f.needed)
