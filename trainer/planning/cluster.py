"""The planner's model of a cluster: GPUs, the links between them, and the assumed efficiency of
links and memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainer.batching.flops import Shape
from trainer.planning.hardware import Gpu

LINK_SHARE = 0.8
"""Share of a link's nominal bandwidth that NCCL's ring collectives reach (nccl-tests' bus
bandwidth).
"""
MEMORY_SHARE = 0.8
"""Share of the memory's nominal bandwidth that elementwise kernels reach."""
RING_HOP_SECONDS = 3e-6
"""Latency of one step of a ring collective (NCCL's tuning constants: 1 us inside a node, 3 to 5 us
between nodes).
"""


@dataclass(frozen=True)
class Cluster:
    """Nodes of equal GPUs: NVLink inside a node, one network between nodes."""

    gpu: Gpu
    nodes: int
    gpus_per_node: int
    network: float
    """Bytes/s that a node sends over all its network adapters."""

    @property
    def ranks(self) -> int:
        """Number of ranks, one per GPU."""
        return self.nodes * self.gpus_per_node

    def ring_seconds(self, size: float) -> float:
        """Returns the seconds of an all-gather to, or a reduce-scatter of, ``size`` bytes over all
        ranks.

        A ring sends (ranks - 1) / ranks of the bytes over every link, including each node's network
        link.
        """
        if self.ranks == 1:
            return 0.0
        slowest = self.gpu.nvlink if self.nodes == 1 else min(self.gpu.nvlink, self.network)
        share = (self.ranks - 1) / self.ranks
        return size * share / (slowest * LINK_SHARE) + (self.ranks - 1) * RING_HOP_SECONDS

    def exchange_seconds(self, size: float, ranks: int) -> float:
        """Returns the seconds of an all-to-all of ``size`` bytes per rank; a node's ranks share its
        network link.
        """
        inside = min(ranks, self.gpus_per_node)
        within = size * (inside - 1) / ranks / self.gpu.nvlink
        outside = size * (ranks - inside) / ranks * inside / self.network
        return max(within, outside) / LINK_SHARE + (ranks - 1) * RING_HOP_SECONDS


def degrees(shape: Shape, cluster: Cluster) -> list[int]:
    """Returns the degrees of sequence parallelism: the powers of two that divide ranks and query
    heads, and divide or are a multiple of the KV heads.
    """
    powers = [2**i for i in range(cluster.ranks.bit_length())]
    kv = shape.kv_heads
    return [
        d
        for d in powers
        if cluster.ranks % d == shape.heads % d == 0 and not max(d, kv) % min(d, kv)
    ]
