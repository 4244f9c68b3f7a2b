"""Forecasts the time of a GRPO step: rollouts, old log-probabilities, update, weights to vLLM.

Everything is calculated from rates (``hardware``, ``cluster``), nothing is measured. Rewards,
validation and checkpoints are not counted.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainer.batching.balance import MicroBatches
from trainer.batching.flops import Shape
from trainer.planning import rl_memory
from trainer.planning.cluster import MEMORY_SHARE, RING_HOP_SECONDS, Cluster
from trainer.planning.memory import FLOAT32
from trainer.planning.rl_memory import BF16, RlSetup
from trainer.planning.step_time import forward_seconds, step_time

MOST_ROLLOUTS = 256
"""verl's max_num_seqs: the maximum number of rollouts in flight per engine."""
LEAST_REQUESTS, MOST_REQUESTS = 64, 512
"""Maximum requests per engine at a time in an evaluation with eval.concurrency=null, which adapts
the number to the KV cache and the expected length.
"""
DECODE_OVERHEAD = 3e-3
"""Seconds per decode step for vLLM's scheduler, sampler and launches. Assumed."""


@dataclass(frozen=True)
class RlLoad:
    """The rollouts of one step."""

    prompt: int
    """Tokens of the longest prompt; each prompt counts as that long."""
    limit: int
    """max_response_length."""
    responses: np.ndarray
    """Tokens of each rollout of the step, at most the limit."""
    source: str
    """Source of these lengths."""

    @staticmethod
    def of(prompt: int, limit: int, measured: Sequence[int], rollouts: int, source: str) -> RlLoad:
        """Returns a step of ``rollouts`` rollouts: evenly spaced quantiles of the measured tokens,
        cut off at the limit.
        """
        places = (np.arange(rollouts) + 0.5) / rollouts
        tokens = np.quantile(np.asarray(measured), places, method="nearest")
        return RlLoad(prompt, limit, np.minimum(tokens, limit).astype(np.int64), source)

    @property
    def context(self) -> int:
        """Tokens of the longest possible row."""
        return self.prompt + self.limit

    @property
    def mean(self) -> float:
        """Mean tokens of a row."""
        return self.prompt + float(self.responses.mean())


@dataclass(frozen=True)
class RlTime:
    """Seconds of a step by part."""

    rollouts: float
    log_probs: float
    update: float
    weights: float
    """Gathering the weights for vLLM, and what offloading moves over PCIe."""

    @property
    def total(self) -> float:
        """Seconds of the step."""
        return self.rollouts + self.log_probs + self.update + self.weights


def in_flight(shape: Shape, setup: RlSetup, cluster: Cluster, load: RlLoad) -> float:
    """Returns the rollouts that one engine's cache holds: its tokens over a mean row's."""
    return rl_memory.cache_tokens(shape, setup, cluster.gpu.memory) / load.mean


def rollout_seconds(
    shape: Shape, setup: RlSetup, cluster: Cluster, load: RlLoad, most: int = MOST_ROLLOUTS
) -> float:
    """Returns the seconds in which one engine generates its share of the rollouts; ``generation``
    says how.
    """
    return generation(shape, setup, cluster, load, most)[0]


def generation(
    shape: Shape, setup: RlSetup, cluster: Cluster, load: RlLoad, most: int
) -> tuple[float, float]:
    """Returns the seconds in which one engine generates its share of the rollouts, at most ``most``
    at once, and the seconds of it lost to the tail: the time weighted by the share of its slots
    that are empty, because no rollout is left to start.

    The engine is that with the longest rollout. Rollouts start in a fixed random order as others
    end, as many at once as the cache holds at their mean length; between two ends the batch is
    constant. Prefill is not counted: it is one forward over short prompts, which a group shares.
    Nor is the second prefill of preempted rollouts: an engine that starts more rollouts than its
    cache holds at their ends preempts some, but also runs more at once. The simulation of
    ``tests.bench.decode``, which preempts, ends within 15 % of this time.
    """
    engines = cluster.ranks // setup.tensor_parallel
    order = np.random.default_rng(0).permutation(np.sort(load.responses)[::-1][::engines])
    waiting = [max(1, int(length)) for length in order]
    slots = int(min(most, max(1.0, in_flight(shape, setup, cluster, load))))
    ends: list[tuple[int, int]] = []
    step, started, seconds, tail = 0, 0, 0.0, 0.0
    while waiting or ends:
        while waiting and len(ends) < slots:
            heapq.heappush(ends, (step + waiting.pop(), step))
            started += step
        until = ends[0][0]
        held = len(ends) * (load.prompt + (step + until) / 2) - started
        spent = (until - step) * decode_seconds(shape, setup, cluster, len(ends), held)
        seconds += spent
        tail += spent * (1 - len(ends) / slots)
        step = until
        while ends and ends[0][0] == step:
            started -= heapq.heappop(ends)[1]
    return seconds, tail


def decode_seconds(
    shape: Shape, setup: RlSetup, cluster: Cluster, rollouts: int, held: float
) -> float:
    """Returns the seconds of one decode step of ``rollouts`` rollouts that hold ``held`` tokens.

    It reads all weights and the cache once, or multiplies 2 FLOPs per weight and rollout, whichever
    takes longer. Under tensor parallelism each layer has two all-reduces.
    """
    gpu, degree = cluster.gpu, setup.tensor_parallel
    read = rl_memory.rollout_weights(shape, degree) + held * rl_memory.cache_bytes(shape, degree)
    weights = shape.layers * shape.layer_matmul_parameters + shape.embedding_parameters
    flops = 2 * weights * rollouts / degree
    hops = 2 * (degree - 1) * RING_HOP_SECONDS
    moved = 2 * (degree - 1) / degree * BF16 * shape.hidden * rollouts / gpu.nvlink
    return (
        max(
            read / (gpu.memory_bandwidth * MEMORY_SHARE),
            flops / (gpu.bf16_flops * gpu.matmul_share),
        )
        + 2 * shape.layers * (hops + moved)
        + DECODE_OVERHEAD
    )


def packed(load: RlLoad, groups: int, budget: int) -> tuple[MicroBatches, dict[int, int]]:
    """Returns (micro-batches, row -> tokens): rows dealt longest first to ``groups`` groups, there
    and back, each group's packed in that order into micro-batches of ``budget`` tokens.
    """
    rows = np.sort(load.responses)[::-1].astype(int) + load.prompt
    lengths = dict(enumerate(rows.tolist()))
    dealt: list[list[list[int]]] = [[[]] for _ in range(groups)]
    room = [budget] * groups
    for row, length in lengths.items():
        lap, place = divmod(row, groups)
        group = place if lap % 2 == 0 else groups - 1 - place
        if length > room[group]:
            dealt[group].append([])
            room[group] = budget
        dealt[group][-1].append(row)
        room[group] -= length
    most = max(map(len, dealt))
    return [bins + [[]] * (most - len(bins)) for bins in dealt], lengths


def log_prob_seconds(shape: Shape, setup: RlSetup, cluster: Cluster, load: RlLoad) -> float:
    """Returns the seconds of the pass for old log-probabilities: a forward over all rows."""
    step = setup.training
    groups = step.ranks // step.sequence_parallel
    budget = setup.log_prob_tokens * step.sequence_parallel
    return forward_seconds(shape, step, cluster, *packed(load, groups, budget))


def update_seconds(shape: Shape, setup: RlSetup, cluster: Cluster, load: RlLoad) -> float:
    """Returns the seconds of the update: forward, recomputation, backward, optimizer."""
    step = setup.training
    groups = step.ranks // step.sequence_parallel
    budget = step.tokens * step.sequence_parallel
    return step_time(shape, step, cluster, *packed(load, groups, budget)).total


def weight_seconds(shape: Shape, setup: RlSetup, cluster: Cluster) -> float:
    """Returns the seconds in which every rank gathers the float32 weights and writes them in bf16
    for vLLM, and in which offloaded state crosses PCIe.

    Offloaded weights cross five times: there and back for old log-probabilities and for the update,
    and once to be gathered. Moments cross there and back for the update.
    """
    gathered = cluster.ring_seconds(FLOAT32 * shape.parameters)
    written = 2 * BF16 * shape.parameters / (cluster.gpu.memory_bandwidth * MEMORY_SHARE)
    crossings = 5 * setup.param_offload + 2 * 2 * setup.optimizer_offload
    crossing = FLOAT32 * shape.parameters / cluster.ranks / cluster.gpu.pcie
    return gathered + written + crossings * crossing
