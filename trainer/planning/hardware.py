"""NVIDIA GPUs by their CUDA names: the only table of memory, rates and peaks.

The step metrics use the peak (for MFU), the planner every column, the doctor name and memory.
"""

from __future__ import annotations

from dataclasses import dataclass

AMPERE, HOPPER, BLACKWELL = (0.70, 0.50), (0.60, 0.30), (0.60, 0.13)
"""Shares of the bf16 peak that (cuBLAS, flash-attention 2) reach. They are published measurements
on the A100 and the H100 (Dao 2023), rounded down; this project measured none of them. H20, Ada and
GeForce are assumed to reach the A100's shares; flash-attention 2 has no kernels of its own for the
B200 and is assumed to be as fast there as on an H100.
"""


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU: memory in bytes, rates in bytes/s (one direction of a link) and FLOP/s."""

    names: tuple[str, ...]
    """The GPU's CUDA names, without the prefix ``NVIDIA``."""
    memory: float
    """Total memory that CUDA reports, a little under the nominal size."""
    memory_bandwidth: float
    bf16_flops: float
    """Dense peak of the tensor cores, accumulating in float32."""
    fp32_flops: float
    """Peak outside the tensor cores, for train.precision=fp32."""
    nvlink: float
    """Bandwidth between GPUs of a node: PCIe's where NVLink is missing or only joins pairs."""
    pcie: float
    """Bandwidth to the host's memory: NVLink-C2C's on Grace."""
    matmul_share: float
    """Share of the bf16 peak that cuBLAS reaches on a decoder's matmuls with at least 5K tokens."""
    attention_share: float
    """Share that causal flash-attention 2 reaches over forward and backward, with backward counted
    as 2 x forward (the paper's figures at head_dim 128 count 2.5 x).
    """

    def peak(self, compute: int) -> float:
        """Returns the dense peak in FLOP/s for a compute dtype of 2 bytes (bf16) or 4 (fp32)."""
        return self.fp32_flops if compute == 4 else self.bf16_flops


def _gpu(
    names: str,
    gib: float,
    bandwidth: float,
    bf16: float,
    fp32: float,
    nvlink: float,
    pcie: float,
    shares: tuple[float, float],
) -> Gpu:
    """Returns a row of the table from comma-separated names, memory in GiB, rates in GB/s and peaks
    in TFLOP/s.
    """
    return Gpu(
        tuple(names.split(", ")),
        gib * 2**30,
        bandwidth * 1e9,
        bf16 * 1e12,
        fp32 * 1e12,
        nvlink * 1e9,
        pcie * 1e9,
        *shares,
    )


# Rates and peaks are from NVIDIA's data sheets; peaks with sparsity are halved. For RTX cards they
# are from the white papers of GA102, Ada (AD102) and Blackwell (GB202): a GeForce accumulates bf16
# in float32 at twice its fp32 peak. The SUPER cards' and the 4090 D's peaks follow from their fp32
# peaks. A100-64: Turisini et al. 2023 (Leonardo's own A100, 124 of the chip's 128 multiprocessors;
# peaks are in proportion to the A100's 108). Memory: what torch reports.
GPUS = {
    "a100-40": _gpu("A100-SXM4-40GB", 39.4, 1555, 312, 19.5, 300, 25, AMPERE),
    "a100-80": _gpu("A100-SXM4-80GB, A100-SXM-80GB", 79.1, 2039, 312, 19.5, 300, 25, AMPERE),
    "h100-80": _gpu("H100 80GB HBM3, H100", 79.1, 3350, 989, 67, 450, 50, HOPPER),
    "h200-141": _gpu("H200", 139.8, 4800, 989, 67, 450, 50, HOPPER),
    "a100-64": _gpu("A100-SXM-64GB", 63.4, 1640, 358, 22.4, 300, 25, AMPERE),
    "a100-40-pcie": _gpu("A100-PCIE-40GB", 39.4, 1555, 312, 19.5, 25, 25, AMPERE),
    "a100-80-pcie": _gpu("A100 80GB PCIe", 79.1, 1935, 312, 19.5, 25, 25, AMPERE),
    "a800-40": _gpu("A800-SXM4-40GB", 39.4, 1555, 312, 19.5, 200, 25, AMPERE),
    "a800-80": _gpu("A800-SXM4-80GB", 79.1, 2039, 312, 19.5, 200, 25, AMPERE),
    "a800-80-pcie": _gpu("A800 80GB PCIe", 79.1, 1935, 312, 19.5, 25, 25, AMPERE),
    "h100-80-pcie": _gpu("H100 PCIe", 79.1, 2000, 756, 51, 50, 50, HOPPER),
    "h100-94-nvl": _gpu("H100 NVL", 93.0, 3900, 835, 60, 50, 50, HOPPER),
    "h800-80": _gpu("H800", 79.1, 3350, 989, 67, 200, 50, HOPPER),
    "h800-80-pcie": _gpu("H800 PCIe", 79.1, 2000, 756, 51, 50, 50, HOPPER),
    "h20-96": _gpu("H20", 95.0, 4000, 148, 44, 450, 50, AMPERE),
    "h20-141": _gpu("H20-3e", 139.8, 4800, 148, 44, 450, 50, AMPERE),
    "h200-141-nvl": _gpu("H200 NVL", 139.8, 4800, 835, 60, 50, 50, HOPPER),
    "gh200-96": _gpu("GH200 480GB, GH200 120GB", 94.5, 4000, 989, 67, 450, 450, HOPPER),
    "gh200-144": _gpu("GH200 144G HBM3e", 142.0, 4900, 989, 67, 450, 450, HOPPER),
    "b200-180": _gpu("B200", 178.3, 8000, 2250, 75, 900, 50, BLACKWELL),
    "gb200-186": _gpu("GB200", 184.0, 8000, 2500, 80, 900, 450, BLACKWELL),
    "a40-48": _gpu("A40", 44.4, 696, 149.7, 37.4, 25, 25, AMPERE),
    "l40-48": _gpu("L40", 44.4, 864, 181, 90.5, 25, 25, AMPERE),
    "l40s-48": _gpu("L40S", 44.4, 864, 362, 91.6, 25, 25, AMPERE),
    "a6000-48": _gpu("RTX A6000", 47.4, 768, 154.8, 38.7, 25, 25, AMPERE),
    "rtx6000ada-48": _gpu("RTX 6000 Ada Generation", 47.4, 960, 364, 91.1, 25, 25, AMPERE),
    "rtx3090-24": _gpu("GeForce RTX 3090", 23.5, 936, 71, 35.6, 25, 25, AMPERE),
    "rtx3090ti-24": _gpu("GeForce RTX 3090 Ti", 23.5, 1008, 80, 40, 25, 25, AMPERE),
    "rtx4070-12": _gpu("GeForce RTX 4070", 11.6, 504, 58.3, 29.1, 25, 25, AMPERE),
    "rtx4070s-12": _gpu("GeForce RTX 4070 SUPER", 11.6, 504, 71, 35.5, 25, 25, AMPERE),
    "rtx4070ti-12": _gpu("GeForce RTX 4070 Ti", 11.6, 504, 80.2, 40.1, 25, 25, AMPERE),
    "rtx4070tis-16": _gpu("GeForce RTX 4070 Ti SUPER", 15.6, 672, 88.2, 44.1, 25, 25, AMPERE),
    "rtx4080-16": _gpu("GeForce RTX 4080", 15.6, 717, 97.5, 48.7, 25, 25, AMPERE),
    "rtx4080s-16": _gpu("GeForce RTX 4080 SUPER", 15.6, 736, 104.4, 52.2, 25, 25, AMPERE),
    "rtx4090-24": _gpu("GeForce RTX 4090", 23.5, 1008, 165.2, 82.6, 25, 25, AMPERE),
    "rtx4090d-24": _gpu("GeForce RTX 4090 D", 23.5, 1008, 147, 73.5, 25, 25, AMPERE),
    "rtx5090-32": _gpu("GeForce RTX 5090", 31.3, 1792, 209.5, 104.8, 50, 50, AMPERE),
}

_KINDS = {name: kind for kind, gpu in GPUS.items() for name in gpu.names}


def kind_of(device: str) -> str | None:
    """Returns the kind (a key of ``GPUS``) of the device with the CUDA name ``device``; None if it
    is not in the table.

    The full name must match: a MIG slice ("... MIG 3g.20gb"), a virtual GPU and a laptop's GPU have
    neither the memory nor the peak of the card they are named after.
    """
    return _KINDS.get(device.removeprefix("NVIDIA "))


def covers(kind: str, planned: str) -> bool:
    """Returns whether a forecast for ``planned`` holds on ``kind``: the same chip, with no less
    memory, rate or peak.

    An A100-80 covers an A100-40; an H200 NVL, whose peak is lower, does not cover an H200.
    """
    there, wanted = GPUS[kind], GPUS[planned]
    fields = ("memory", "memory_bandwidth", "bf16_flops", "nvlink")
    same_chip = kind.partition("-")[0] == planned.partition("-")[0]
    return same_chip and all(getattr(there, field) >= getattr(wanted, field) for field in fields)


def peak_flops(device: str) -> float | None:
    """Returns the dense bf16 peak in FLOP/s of a device by its CUDA name; None if it is not in the
    table.
    """
    kind = kind_of(device)
    return GPUS[kind].bf16_flops if kind else None
