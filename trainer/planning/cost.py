"""What a recipe will cost: GPU-hours of training and of its evaluations, and money.

Saves, validation and queues are not counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist

import numpy as np
from omegaconf import DictConfig

from common.errors import UserError
from data_prep.benchmarks import sets as benchmarks
from data_prep.benchmarks.known import BENCHMARKS
from trainer.batching.sampler import steps_per_epoch
from trainer.planning.memory import Setup
from trainer.planning.planner import Forecast, Planner
from trainer.planning.rl_memory import RlSetup
from trainer.planning.rl_time import RlLoad, rollout_seconds

PROMPT = 512
"""Tokens of a benchmark's problem with its prompt, at most. Assumed."""
START_SECONDS = 120
"""Seconds in which vLLM starts, during which its GPUs are held. Assumed."""
MEDIAN, CAP, BEYOND = 11_600, 16_384, 0.37
"""Median tokens of a rollout on ``t0``, and the share that reached the cap: Qwen3-4B-SFT-Math's
model card.
"""
UTILIZATION = 0.92
"""vLLM's default share of the GPU's memory."""


@dataclass(frozen=True)
class Evaluations:
    """The evaluations that follow a run by themselves: of the base model and of each checkpoint."""

    count: int
    rollouts: int
    """Rollouts of one evaluation."""
    tokens: float
    """Mean tokens of a rollout."""
    hours: float
    """GPU-hours of one evaluation."""
    source: str
    """Where the lengths are from."""


@dataclass(frozen=True)
class Cost:
    """A forecast in GPU-hours; ``usd`` is the price of one, None where none is set."""

    training: float
    evaluations: Evaluations
    usd: float | None

    @property
    def hours(self) -> float:
        """GPU-hours of training and of all evaluations."""
        return self.training + self.evaluations.count * self.evaluations.hours

    def line(self) -> str:
        """Returns the cost in one line."""
        of = self.evaluations
        return (
            f"{self.hours:,.0f} GPU-hours{self._money(self.hours)}: training {self.training:,.0f}, "
            f"{of.count} evaluations of {of.rollouts:,} rollouts {of.count * of.hours:,.0f}"
        )

    def page(self) -> str:
        """Returns the cost as a table, with its assumptions."""
        of = self.evaluations
        rows = [
            ("training", self.training),
            (f"evaluations: {of.count} x {of.hours:,.1f}", of.count * of.hours),
            ("total", self.hours),
        ]
        lines = [f"  {name:<24}{hours:>9,.1f}{self._money(hours)}" for name, hours in rows]
        return "\n".join(
            [
                "cost, GPU-hours (saves, validation and waiting are not counted)",
                *lines,
                f"  An evaluation has {of.rollouts:,} rollouts of {of.tokens:,.0f} tokens on "
                f"average\n  ({of.source}).",
            ]
        )

    def _money(self, hours: float) -> str:
        return "" if self.usd is None else f", {hours * self.usd:,.0f} USD"


def cost(planner: Planner, own: Forecast) -> Cost:
    """Returns the forecast of the recipe's own layout and of its evaluations.

    Raises UserError when a benchmark's size is not known or the model does not fit an engine.
    """
    training = planner.hours(own.step.total) * planner.cluster.ranks
    return Cost(training, _evaluations(planner), planner.config.cluster.usd_per_gpu_hour)


def _evaluations(planner: Planner) -> Evaluations:
    config = planner.config
    rollouts = benchmarks.protocol(
        list(config.eval.sets), config.eval.rollouts, config.eval.temperature
    )[0]
    many = rollouts * sum(_problems(config))
    tokens, source = _lengths(planner)
    # On one node: its engines share the rollouts, and more nodes cost the same.
    cluster = replace(planner.cluster, nodes=1)
    degree = config.eval.tensor_parallel
    alone = Setup(cluster.ranks, 1, config.data.max_length, "none")
    setup = RlSetup(alone, 0, degree, UTILIZATION)
    load = RlLoad.of(PROMPT, config.eval.max_tokens, tokens, many, source)
    seconds = rollout_seconds(planner.shape, setup, cluster, load, config.eval.concurrency)
    per_epoch = steps_per_epoch(len(planner.lengths.tokens), config.train.batch_size)
    saves = math.ceil(planner.total_steps / (config.train.save_every or per_epoch))
    hours = (seconds + START_SECONDS) * cluster.ranks / 3600
    return Evaluations(1 + saves, many, float(load.responses.mean()), hours, source)


def _problems(config: DictConfig) -> Iterator[int]:
    """Yields the number of problems of each set: in its file, or as it is known by name."""
    for name in benchmarks.expand(list(config.eval.sets)):
        file = Path(config.eval.benchmarks) / f"{name}.jsonl"
        if file.is_file():
            count = len(benchmarks.load_file(file, name))
        elif name in BENCHMARKS:
            count = BENCHMARKS[name].problems
        else:
            raise UserError(f"{file} does not exist, so its evaluations are not counted")
        yield min(count, config.eval.limit or count)


def _lengths(planner: Planner) -> tuple[list[int], str]:
    """Returns quantiles of the rollouts' tokens and their source: on competition problems the
    published model's, which thinks longer there than in its training rows; else the rows'.
    """
    places = (np.arange(1000) + 0.5) / 1000
    if {*benchmarks.expand(list(planner.config.eval.sets))} & {*benchmarks.SUITES["t0"].sets}:
        normal = NormalDist()
        sigma = math.log(CAP / MEDIAN) / normal.inv_cdf(1 - BEYOND)
        tokens = [round(MEDIAN * math.exp(sigma * normal.inv_cdf(place))) for place in places]
        return tokens, (
            f"lognormal through the published median {MEDIAN:,} and {BEYOND:.0%} beyond {CAP:,} "
            "tokens, cut off at eval.max_tokens"
        )
    rows = np.quantile(planner.lengths.tokens, places, method="nearest")
    return rows.tolist(), "as long as the training rows"
