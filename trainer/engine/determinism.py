"""Makes a GPU's kernels add in the same order every time, so that a resumed run repeats its losses bit for bit."""

from __future__ import annotations

import os

import torch

CUBLAS_WORKSPACE = ":4096:8"
"""Eight buffers of 4 MiB, one of the two settings with which cuBLAS is deterministic (cuBLAS documentation)."""


def choose(deterministic: bool) -> None:
    """Has torch take deterministic kernels in this process, or the fastest; call it before the first matmul.

    torch's varlen_attn and memory-efficient SDPA read this setting in their backward; our attention function hands it
    to flash-attn. An operator that has no deterministic kernel raises RuntimeError.
    """
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", CUBLAS_WORKSPACE)
    torch.use_deterministic_algorithms(deterministic)
    # Else torch also writes NaN into every new tensor, which costs as much as an elementwise kernel.
    torch.utils.deterministic.fill_uninitialized_memory = False
