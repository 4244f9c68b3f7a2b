"""How long a training step takes on a cluster: arithmetic, memory traffic and communication of every micro-step.

On one GPU kernels run one after another, so matmuls (or the reading of their weights), attention and elementwise
traffic add up. FSDP2 gathers the next layer and reduces the last one beside that; Ulysses' exchanges wait. All groups
run a micro-step together, so it takes as long as its slowest group. Launching kernels and the host's work are not
counted: they show with micro-batches of a few hundred tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

import numpy as np

from trainer.batching.balance import Plan, efficiency
from trainer.batching.flops import Shape
from trainer.planning import work
from trainer.planning.cluster import MEMORY_SHARE, Cluster
from trainer.planning.memory import FLOAT32, Setup
from trainer.planning.work import Work

HOST_BANDWIDTH = 100e9
"""Bytes/s of a node's memory in AdamW on its CPUs, shared by its ranks."""


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step by what takes them."""

    compute: float
    """On the slowest group: matmuls, attention, elementwise kernels, embedding, head and loss."""
    waiting: float
    """FSDP's communication beyond what compute hides."""
    exchange: float
    """Ulysses' all-to-alls."""
    optimizer: float

    @property
    def total(self) -> float:
        """The step."""
        return self.compute + self.waiting + self.exchange + self.optimizer

    @classmethod
    def mean(cls, steps: Sequence[StepTime]) -> StepTime:
        """Of several steps."""
        return cls(*(float(np.mean(values)) for values in zip(*(astuple(step) for step in steps), strict=True)))


@dataclass(frozen=True)
class Timing:
    """A layout's mean step."""

    step: StepTime
    balance: float
    """Mean over maximum of the groups' FLOPs in lockstep."""


def timing(
    shape: Shape, setup: Setup, cluster: Cluster, plans: Sequence[Plan], steps: Sequence[Mapping[int, int]]
) -> Timing:
    """The mean over ``steps`` of rows (row -> tokens) as they are planned."""
    planned = list(zip(plans, steps, strict=True))
    return Timing(
        StepTime.mean([step_time(shape, setup, cluster, plan, lengths) for plan, lengths in planned]),
        float(np.mean([efficiency(plan, lengths, shape) for plan, lengths in planned])),
    )


def step_time(shape: Shape, setup: Setup, cluster: Cluster, plan: Plan, lengths: Mapping[int, int]) -> StepTime:
    """Forecasts one step of ``plan``, [group][micro-batch] -> rows of ``lengths`` tokens; saves are not counted."""
    micros = [[np.array([lengths[r] for r in rows], dtype=np.float64) for rows in group] for group in plan]
    tokens = np.array([[n.sum() for n in group] for group in micros]) / setup.sequence_parallel
    pairs = np.array([[(n * (n + 1)).sum() / 2 for n in group] for group in micros]) / setup.sequence_parallel
    forward, backward, ends = _compute(shape, setup, cluster, tokens, pairs)
    slowest = (forward + backward).argmax(axis=0), np.arange(tokens.shape[1])
    forward, backward, ends, tokens = forward[slowest], backward[slowest], ends[slowest], tokens[slowest]
    gather, reduce = _layer_communication(shape, setup, cluster)
    hidden = np.maximum(0, gather - forward) + np.maximum(0, gather + reduce - backward)
    return StepTime(
        compute=float((shape.layers * (forward + backward) + ends).sum()),
        waiting=float((shape.layers * hidden + _exposed(shape, setup, cluster)).sum()),
        exchange=float(shape.layers * _exchange(shape, setup, cluster, tokens).sum()),
        optimizer=_optimizer(shape, setup, cluster),
    )


def _compute(
    shape: Shape, setup: Setup, cluster: Cluster, tokens: np.ndarray, pairs: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Seconds of (one layer's forward, its backward with recomputation, embedding and loss) by tokens and pairs."""
    gpu = cluster.gpu
    peak, bandwidth = gpu.peak(setup.compute), gpu.memory_bandwidth * MEMORY_SHARE
    reading = setup.compute * shape.layer_matmul_parameters / bandwidth

    def seconds(done: Work, readings: int) -> np.ndarray:
        matmul = np.maximum(done.matmul / (peak * gpu.matmul_share), readings * reading)
        return matmul + done.attention / (peak * gpu.attention_share) + done.traffic / bandwidth

    again, _ = work.COMPUTED_AGAIN[setup.checkpointing]
    return (
        seconds(work.forward(shape, setup, tokens, pairs), 1),
        seconds(work.backward(shape, setup, tokens, pairs), 2 + again),
        seconds(work.loss(shape, setup, tokens), 0) + seconds(work.ends(shape, setup, tokens), 0),
    )


def _layer_communication(shape: Shape, setup: Setup, cluster: Cluster) -> tuple[float, float]:
    """Seconds of one layer's (all-gather, reduce-scatter); with offload its shard also crosses PCIe, in float32."""
    shard = FLOAT32 * shape.layer_parameters / setup.ranks / cluster.gpu.pcie if setup.offload else 0.0
    gather = cluster.ring_seconds(setup.compute * shape.layer_parameters)
    return gather + shard, cluster.ring_seconds(FLOAT32 * shape.layer_parameters) + shard


def _exposed(shape: Shape, setup: Setup, cluster: Cluster) -> float:
    """Communication of a micro-step with nothing beside it: the first gathers and the last reduce-scatters.

    An untied head is gathered again in backward; its reduce-scatter runs beside the last layer's backward.
    """
    gather, reduce = _layer_communication(shape, setup, cluster)
    ends = cluster.ring_seconds(setup.compute * shape.embedding_parameters) * (1 if shape.tied else 3)
    return gather + reduce + ends + cluster.ring_seconds(FLOAT32 * shape.embedding_parameters)


def _exchange(shape: Shape, setup: Setup, cluster: Cluster, tokens: np.ndarray) -> np.ndarray:
    """Seconds of one layer's all-to-alls (queries, keys, values, output) forward, again in recomputation, backward."""
    degree = setup.sequence_parallel
    if degree == 1:
        return 0 * tokens
    copies = max(1, degree // shape.kv_heads)
    width = shape.head_dim * np.array([shape.heads, shape.kv_heads * copies, shape.kv_heads * copies, shape.heads])
    times = 2 if setup.checkpointing == "none" else 3
    sizes = setup.compute * width[:, None] * tokens
    return times * np.array([[cluster.exchange_seconds(b, degree) for b in row] for row in sizes]).sum(axis=0)


def _optimizer(shape: Shape, setup: Setup, cluster: Cluster) -> float:
    bandwidth = cluster.gpu.memory_bandwidth * MEMORY_SHARE
    if setup.offload:
        bandwidth = HOST_BANDWIDTH / cluster.gpus_per_node
    return work.optimizer_bytes(setup) * shape.parameters / setup.ranks / bandwidth
