"""GPUs and clusters as the planner sees them: data-sheet figures, and the share of each that real kernels reach."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.flops import peak_flops

LINK_SHARE = 0.8
"""Share of a link's nominal bandwidth that NCCL's ring collectives reach (nccl-tests' bus bandwidth)."""
MEMORY_SHARE = 0.8
"""Share of the memory's nominal bandwidth that elementwise kernels reach."""
RING_HOP_SECONDS = 3e-6
"""Latency of one step of a ring collective (NCCL's tuning constants: 1 us inside a node, 3 to 5 us between nodes)."""


@dataclass(frozen=True)
class Gpu:
    """One GPU: memory in bytes, rates in bytes/s and FLOP/s, one direction of a link."""

    device: str
    """The beginning of CUDA's name for it, a key of ``flops.PEAK_FLOPS``."""
    memory: float
    """What CUDA reports as total, a little under the nominal size."""
    memory_bandwidth: float
    nvlink: float
    pcie: float
    fp32_flops: float
    """Peak outside the tensor cores, for train.precision=fp32."""
    matmul_share: float
    """Share of the bf16 peak that cuBLAS reaches on a decoder's matmuls at 5K tokens and more."""
    attention_share: float
    """Share that causal flash-attention 2 reaches, forward and backward, counting backward as twice forward
    (the paper's figures at head_dim 128 count it 2.5 times)."""

    def peak(self, compute: int) -> float:
        """Dense peak in FLOP/s for a compute type of 2 bytes (bf16) or 4 (fp32)."""
        if compute == 4:
            return self.fp32_flops
        bf16 = peak_flops(self.device)
        assert bf16 is not None
        return bf16


# Memory, bandwidths and peaks: NVIDIA's data sheets of the SXM boards. Shares: published measurements of cuBLAS and
# of flash-attention 2 (Dao 2023), rounded down; none was measured by this project.
GPUS = {
    "a100-40": Gpu("NVIDIA A100", 39.4 * 2**30, 1555e9, 300e9, 25e9, 19.5e12, 0.70, 0.50),
    "a100-80": Gpu("NVIDIA A100", 79.1 * 2**30, 2039e9, 300e9, 25e9, 19.5e12, 0.70, 0.50),
    "h100-80": Gpu("NVIDIA H100", 79.1 * 2**30, 3350e9, 450e9, 50e9, 67e12, 0.60, 0.30),
    "h200-141": Gpu("NVIDIA H200", 139.8 * 2**30, 4800e9, 450e9, 50e9, 67e12, 0.60, 0.30),
}


@dataclass(frozen=True)
class Cluster:
    """Nodes of like GPUs: NVLink inside a node, one network between them."""

    gpu: Gpu
    nodes: int
    gpus_per_node: int
    network: float
    """Bytes/s that a node sends, over all its adapters together."""

    @property
    def ranks(self) -> int:
        """One a GPU."""
        return self.nodes * self.gpus_per_node

    def ring_seconds(self, size: float) -> float:
        """An all-gather to, or a reduce-scatter of, ``size`` bytes over all ranks.

        A ring carries (ranks - 1) / ranks of it over every link, among them each node's way out.
        """
        if self.ranks == 1:
            return 0.0
        slowest = self.gpu.nvlink if self.nodes == 1 else min(self.gpu.nvlink, self.network)
        share = (self.ranks - 1) / self.ranks
        return size * share / (slowest * LINK_SHARE) + (self.ranks - 1) * RING_HOP_SECONDS

    def exchange_seconds(self, size: float, ranks: int) -> float:
        """An all-to-all of ``size`` bytes a rank among ``ranks`` neighbours; a node's ranks share its way out."""
        inside = min(ranks, self.gpus_per_node)
        within = size * (inside - 1) / ranks / self.gpu.nvlink
        outside = size * (ranks - inside) / ranks * inside / self.network
        return max(within, outside) / LINK_SHARE + (ranks - 1) * RING_HOP_SECONDS
