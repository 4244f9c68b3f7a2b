"""Forecasts the time of a training step on a cluster from FLOPs, memory traffic and communication
per micro-step.

On one GPU kernels run one after another, so matmuls (or reading their weights), attention and
elementwise traffic add up. FSDP2's gather of the next layer and reduce of the previous one overlap
with that; Ulysses' exchanges do not. All groups run a micro-step together, so it takes as long as
its slowest group. A layer takes at least as long as the host needs to launch its kernels, which
matters for micro-batches of a few hundred tokens. Other host work is not counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

import numpy as np

from trainer.batching.balance import MicroBatches, StepPlan
from trainer.batching.flops import Shape
from trainer.planning import work
from trainer.planning.cluster import MEMORY_SHARE, Cluster
from trainer.planning.memory import FLOAT32, Setup
from trainer.planning.work import Work

HOST_BANDWIDTH = 100e9
"""Memory bandwidth of a node, in bytes/s, for AdamW on its CPUs; its ranks share it."""


LAUNCH_SECONDS = 8e-6
"""Seconds of the host per kernel: Python, autograd and the driver. Assumed."""


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step by cause."""

    compute: float
    """Time of the slowest group in matmuls, attention, elementwise kernels, embedding, head and
    loss.
    """
    waiting: float
    """FSDP communication that compute does not hide."""
    exchange: float
    """Ulysses all-to-alls."""
    optimizer: float

    @property
    def total(self) -> float:
        """Seconds of the step."""
        return self.compute + self.waiting + self.exchange + self.optimizer

    @classmethod
    def mean(cls, steps: Sequence[StepTime]) -> StepTime:
        """Returns the mean of several steps."""
        return cls(
            *(
                float(np.mean(values))
                for values in zip(*(astuple(step) for step in steps), strict=True)
            )
        )


@dataclass(frozen=True)
class Timing:
    """A layout's mean step."""

    step: StepTime
    balance: float
    """Groups' mean FLOPs over those of the slowest group summed over micro-steps, 0 to 1."""


def timing(
    shape: Shape,
    setup: Setup,
    cluster: Cluster,
    plans: Sequence[StepPlan],
    steps: Sequence[Mapping[int, int]],
) -> Timing:
    """Returns the mean over ``steps`` of rows (row -> tokens), each run with its plan of
    ``plans``.
    """
    planned = list(zip(plans, steps, strict=True))
    return Timing(
        StepTime.mean(
            [
                step_time(shape, setup, cluster, plan.micro_batches, lengths)
                for plan, lengths in planned
            ]
        ),
        float(np.mean([plan.efficiency for plan in plans])),
    )


def step_time(
    shape: Shape,
    setup: Setup,
    cluster: Cluster,
    micro_batches: MicroBatches,
    lengths: Mapping[int, int],
) -> StepTime:
    """Forecasts one step of rows of ``lengths`` tokens; saves are not included."""
    tokens, pairs = _counts(setup, micro_batches, lengths)
    forward, backward, ends = _compute(shape, setup, cluster, tokens, pairs)
    slowest = (forward + backward).argmax(axis=0), np.arange(tokens.shape[1])
    forward, backward, ends, tokens = (
        forward[slowest],
        backward[slowest],
        ends[slowest],
        tokens[slowest],
    )
    gather, reduce = _layer_communication(shape, setup, cluster)
    hidden = np.maximum(0, gather - forward) + np.maximum(0, gather + reduce - backward)
    return StepTime(
        compute=float((shape.layers * (forward + backward) + ends).sum()),
        waiting=float((shape.layers * hidden + _exposed(shape, setup, cluster)).sum()),
        exchange=float(
            shape.layers
            * (2 if setup.checkpointing == "none" else 3)
            * _exchange(shape, setup, cluster, tokens).sum()
        ),
        optimizer=_optimizer(shape, setup, cluster),
    )


def forward_seconds(
    shape: Shape,
    setup: Setup,
    cluster: Cluster,
    micro_batches: MicroBatches,
    lengths: Mapping[int, int],
) -> float:
    """Forecasts one pass without gradients over rows of ``lengths`` tokens, with every token's
    log-probability and entropy (``work.log_probs``).
    """
    tokens, pairs = _counts(setup, micro_batches, lengths)
    forward, _, _ = _compute(shape, setup, cluster, tokens, pairs)
    slowest = forward.argmax(axis=0), np.arange(tokens.shape[1])
    forward, tokens = forward[slowest], tokens[slowest]
    gather, _ = _layer_communication(shape, setup, cluster)
    first = gather + cluster.ring_seconds(setup.compute * shape.embedding_parameters)
    head = _seconds(setup, cluster, work.log_probs(shape, setup, tokens))
    exchange = _exchange(shape, setup, cluster, tokens)
    layers = shape.layers * (np.maximum(forward, gather) + exchange)
    return float((layers + head + first).sum())


def _counts(
    setup: Setup, micro_batches: MicroBatches, lengths: Mapping[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns a rank's (tokens, (query, key) pairs) by group and micro-batch."""
    micros = [
        [np.array([lengths[r] for r in rows], dtype=np.float64) for rows in group]
        for group in micro_batches
    ]
    tokens = np.array([[n.sum() for n in group] for group in micros])
    pairs = np.array([[(n * (n + 1)).sum() / 2 for n in group] for group in micros])
    return tokens / setup.sequence_parallel, pairs / setup.sequence_parallel


def _seconds(setup: Setup, cluster: Cluster, done: Work, reading: float = 0.0) -> np.ndarray:
    """Returns the seconds of ``done``: its matmuls take at least ``reading``, and the whole at
    least as long as launching its kernels.
    """
    gpu = cluster.gpu
    peak, bandwidth = gpu.peak(setup.compute), gpu.memory_bandwidth * MEMORY_SHARE
    matmul = np.maximum(done.matmul / (peak * gpu.matmul_share), reading)
    attention = done.attention / (peak * gpu.attention_share)
    return np.maximum(matmul + attention + done.traffic / bandwidth, done.kernels * LAUNCH_SECONDS)


def _compute(
    shape: Shape, setup: Setup, cluster: Cluster, tokens: np.ndarray, pairs: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns seconds of (a layer's forward, its backward with recomputation, embedding and loss)
    per micro-batch.
    """
    bandwidth = cluster.gpu.memory_bandwidth * MEMORY_SHARE
    reading = setup.compute * shape.layer_matmul_parameters / bandwidth

    def seconds(done: Work, readings: int) -> np.ndarray:
        return _seconds(setup, cluster, done, readings * reading)

    again, _ = work.COMPUTED_AGAIN[setup.checkpointing]
    return (
        seconds(work.forward(shape, setup, tokens, pairs), 1),
        seconds(work.backward(shape, setup, tokens, pairs), 2 + again),
        seconds(work.loss(shape, setup, tokens), 0) + seconds(work.ends(shape, setup, tokens), 0),
    )


def _layer_communication(shape: Shape, setup: Setup, cluster: Cluster) -> tuple[float, float]:
    """Returns seconds of a layer's (all-gather, reduce-scatter); with offload its float32 shard
    also crosses PCIe.
    """
    shard = (
        FLOAT32 * shape.layer_parameters / setup.ranks / cluster.gpu.pcie if setup.offload else 0.0
    )
    gather = cluster.ring_seconds(setup.compute * shape.layer_parameters)
    return gather + shard, cluster.ring_seconds(FLOAT32 * shape.layer_parameters) + shard


def _exposed(shape: Shape, setup: Setup, cluster: Cluster) -> float:
    """Returns seconds of a micro-step's communication that is never hidden: first gathers and last
    reduce-scatters.

    An untied head is gathered again in backward; its reduce-scatter overlaps with the last layer's
    backward.
    """
    gather, reduce = _layer_communication(shape, setup, cluster)
    ends = cluster.ring_seconds(setup.compute * shape.embedding_parameters) * (
        1 if shape.tied else 3
    )
    return gather + reduce + ends + cluster.ring_seconds(FLOAT32 * shape.embedding_parameters)


def _exchange(shape: Shape, setup: Setup, cluster: Cluster, tokens: np.ndarray) -> np.ndarray:
    """Returns seconds of a layer's all-to-alls (queries, keys, values, output) in one pass:
    forward, recomputation or backward.
    """
    degree = setup.sequence_parallel
    if degree == 1:
        return 0 * tokens
    copies = max(1, degree // shape.kv_heads)
    width = shape.head_dim * np.array(
        [shape.heads, shape.kv_heads * copies, shape.kv_heads * copies, shape.heads]
    )
    sizes = setup.compute * width[:, None] * tokens
    return np.array([[cluster.exchange_seconds(b, degree) for b in row] for row in sizes]).sum(
        axis=0
    )


def _optimizer(shape: Shape, setup: Setup, cluster: Cluster) -> float:
    bandwidth = cluster.gpu.memory_bandwidth * MEMORY_SHARE
    if setup.offload:
        bandwidth = HOST_BANDWIDTH / cluster.gpus_per_node
    return work.optimizer_bytes(setup) * shape.trained_parameters / setup.ranks / bandwidth
