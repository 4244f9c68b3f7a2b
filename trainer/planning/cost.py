"""The cost of a recipe: GPU-hours of training and of its evaluations, and money.

Saves, validation and waiting in queues are not counted.
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
from trainer.planning.cluster import degrees
from trainer.planning.memory import Setup
from trainer.planning.planner import TOLERANCE, Forecast, Planner
from trainer.planning.rl_memory import RlSetup, cache_tokens
from trainer.planning.rl_time import MOST_REQUESTS, RlLoad, generation

PROMPT = 512
"""Maximum tokens of a benchmark's problem with its prompt. Assumed."""
START_SECONDS = 120
"""Seconds that vLLM takes to start, during which its GPUs are occupied. Assumed."""
MEDIAN, CAP, BEYOND = 11_600, 16_384, 0.37
"""Median tokens of a rollout on ``t0``, and the share of rollouts that reached the cap, from
Qwen3-4B-SFT-Math's model card.
"""
UTILIZATION = 0.92
"""vLLM's default share of the GPU's memory."""
SCALES = (4, 16, 64)
"""Numbers of GPUs for which an evaluation is forecast."""


@dataclass(frozen=True)
class Scale:
    """One evaluation on ``gpus`` GPUs."""

    gpus: int
    hours: float
    """Hours from the engines' start to the last rollout."""
    tail: float
    """Share of these hours that is lost to empty slots (``rl_time.generation``)."""


@dataclass(frozen=True)
class Evaluations:
    """The evaluations that a run starts automatically: of the base model and of each checkpoint."""

    count: int
    rollouts: int
    """Rollouts of one evaluation."""
    tokens: float
    """Mean tokens of a rollout."""
    hours: float
    """GPU-hours of one evaluation on one node."""
    source: str
    """Source of the lengths."""
    scales: tuple[Scale, ...]
    """One evaluation on increasing numbers of GPUs."""
    faster: tuple[int, float] | None
    """Number of GPUs per engine that is faster on one node than the recipe's, and the ratio of the
    times; None if no number is faster beyond the forecast's tolerance.
    """

    def by_gpus(self) -> str:
        """Returns a table of one evaluation's time by the number of GPUs."""
        rows = [
            f"  {of.gpus:>6}{of.hours:>9,.2f}{of.gpus * of.hours:>12,.1f}{of.tail:>8.0%}"
            for of in self.scales
        ]
        lines = [
            "one evaluation, from the engines' start to its last rollout",
            "    GPUs    hours   GPU-hours    tail",
            *rows,
            "  tail: share of the time lost to empty slots, because no rollout is left to start",
        ]
        if self.faster is not None:
            degree, ratio = self.faster
            lines.append(
                f"  eval.tensor_parallel={degree} takes {ratio:.2f} of the time on one node."
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class Cost:
    """A forecast in GPU-hours; ``usd`` is the price of a GPU-hour, None if none is set."""

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
                of.by_gpus(),
            ]
        )

    def _money(self, hours: float) -> str:
        return "" if self.usd is None else f", {hours * self.usd:,.0f} USD"


def cost(planner: Planner, own: Forecast) -> Cost:
    """Returns the forecast of the recipe's own layout and of its evaluations.

    Raises UserError when a benchmark's size is not known, and when ``no_room`` finds a fault.
    """
    if fault := no_room(planner):
        raise UserError(": ".join(fault))
    training = planner.hours(own.step.total) * planner.cluster.ranks
    return Cost(training, _evaluations(planner), planner.config.cluster.usd_per_gpu_hour)


def _evaluations(planner: Planner) -> Evaluations:
    config = planner.config
    rollouts = benchmarks.protocol(
        list(config.eval.sets), config.eval.rollouts, config.eval.temperature
    )[0]
    many = rollouts * sum(_problems(config))
    tokens, source = _lengths(planner)
    per_epoch = steps_per_epoch(len(planner.lengths.tokens), config.train.batch_size)
    saves = math.ceil(planner.total_steps / (config.train.save_every or per_epoch))
    load = RlLoad.of(PROMPT, config.eval.max_tokens, tokens, many, source)
    degree = config.eval.tensor_parallel
    # On one node: its engines share the rollouts.
    gpus = max(degree, planner.cluster.gpus_per_node)
    node = _scale(planner, load, gpus, degree)
    scales = tuple(_scale(planner, load, gpus, degree) for gpus in SCALES if gpus >= degree)
    return Evaluations(
        count=1 + saves,
        rollouts=many,
        tokens=float(load.responses.mean()),
        hours=node.gpus * node.hours,
        source=source,
        scales=scales,
        faster=_faster(planner, load, node),
    )


def _faster(planner: Planner, load: RlLoad, node: Scale) -> tuple[int, float] | None:
    """Returns the value of ``Evaluations.faster``: among the degrees whose forecasts count as equal
    to the fastest, the one with the fewest GPUs per engine.
    """
    where = replace(planner.cluster, nodes=1, gpus_per_node=node.gpus)
    ratios = {
        degree: _scale(planner, load, node.gpus, degree).hours / node.hours
        for degree in degrees(planner.shape, where)
        if _holds(planner, degree) >= load.context
    }
    quickest = min(ratios.values(), default=1.0)
    if quickest * TOLERANCE >= 1:
        return None
    return next(item for item in ratios.items() if item[1] <= TOLERANCE * quickest)


def _scale(planner: Planner, load: RlLoad, gpus: int, degree: int) -> Scale:
    """Returns the forecast of one evaluation on ``gpus`` GPUs, ``degree`` per engine."""
    cluster = replace(planner.cluster, nodes=1, gpus_per_node=gpus)
    most = planner.config.eval.concurrency or MOST_REQUESTS
    seconds, tail = generation(planner.shape, _engine(degree), cluster, load, most)
    total = seconds + START_SECONDS
    return Scale(gpus, total / 3600, tail / total)


def _engine(degree: int) -> RlSetup:
    """Returns the settings of vLLM alone on its GPUs."""
    return RlSetup(Setup(degree, 1, 0, "none"), 0, degree, UTILIZATION)


def _holds(planner: Planner, degree: int) -> float:
    """Returns the tokens in the KV cache of an engine."""
    return cache_tokens(planner.shape, _engine(degree), planner.cluster.gpu.memory)


def no_room(planner: Planner) -> tuple[str, str] | None:
    """Returns (why an engine's KV cache does not hold one rollout of the longest prompt and the
    budget, in which case vLLM does not start; the fix); None if it does. Weights are counted in
    bfloat16, so other values of eval.dtype are not judged.
    """
    config, degree = planner.config, planner.config.eval.tensor_parallel
    needed = PROMPT + config.eval.max_tokens
    if config.eval.dtype not in ("auto", "bfloat16") or _holds(planner, degree) >= needed:
        return None
    why = (
        f"eval.tensor_parallel={degree}: by the forecast the KV cache of an engine holds "
        f"{_holds(planner, degree):,.0f} tokens on {config.cluster.gpu}, and one rollout may need "
        f"{needed:,}"
    )
    node = replace(planner.cluster, nodes=1)  # which an engine does not leave
    for more in degrees(planner.shape, node):
        if _holds(planner, more) >= needed:
            return why, f"eval.tensor_parallel={more}"
    return why, "a lower eval.max_tokens, or GPUs with more memory (cluster.gpu)"


def _problems(config: DictConfig) -> Iterator[int]:
    """Yields the number of problems of each set: from its file, or from the known benchmark of that
    name.
    """
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
    """Returns quantiles of the rollouts' tokens and their source: for competition problems those of
    the published model, whose rollouts are longer there than its training rows; otherwise those of
    the rows.
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
