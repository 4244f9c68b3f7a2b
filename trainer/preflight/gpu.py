"""Checks whether this machine has a GPU, without importing torch or Ray, which take long to
start.
"""

from __future__ import annotations

import os
from pathlib import Path

from common.errors import UserError
from trainer.doctor import devices

HIDDEN = ("", "-1", "NoDevFiles")
"""Values of CUDA_VISIBLE_DEVICES that hide all GPUs."""


def has_gpu() -> bool:
    """Returns whether this process can use an NVIDIA GPU."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in HIDDEN:
        return False
    return any(Path("/dev").glob("nvidia[0-9]*")) or devices.find() is not None


def elsewhere() -> bool:
    """Returns whether engines run on the Ray cluster at RAY_ADDRESS, whose nodes have the GPUs."""
    return os.environ.get("RAY_ADDRESS", "local") not in ("", "local")


def check(device: str) -> None:
    """Raises UserError when ``device`` is cuda and this machine has no GPU."""
    if device == "cuda" and not has_gpu():
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in HIDDEN
        why = " (CUDA_VISIBLE_DEVICES hides all)" if hidden else ""
        raise UserError(
            f"device=cuda needs a GPU, and this machine has none{why}: run this on a node with "
            "GPUs (salloc or sbatch on Slurm), or on CPUs with device=cpu"
        )


def check_engines(device: str) -> None:
    """Raises UserError as ``check`` does, unless engines run on the Ray cluster at RAY_ADDRESS."""
    if not elsewhere():
        check(device)
