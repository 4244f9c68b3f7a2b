"""Selects deterministic GPU kernels, so that a resumed run repeats its losses bit for bit."""

from __future__ import annotations

import os

import torch

CUBLAS_WORKSPACE = ":4096:8"
"""Eight buffers of 4 MiB: one of the two settings that make cuBLAS deterministic (cuBLAS
documentation).
"""


def choose(deterministic: bool) -> None:
    """Makes torch use deterministic kernels in this process, or otherwise the fastest ones. Call it
    before the first matmul.

    torch's varlen_attn and memory-efficient SDPA read this setting in their backward; our attention
    function passes it to flash-attn. An operator that has no deterministic kernel raises
    RuntimeError.
    """
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", CUBLAS_WORKSPACE)
    torch.use_deterministic_algorithms(deterministic)
    # By default torch then fills uninitialised tensors with NaN, which costs as much as an
    # elementwise kernel.
    torch.utils.deterministic.fill_uninitialized_memory = False
