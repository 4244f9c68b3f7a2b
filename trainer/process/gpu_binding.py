"""Finds which of the visible GPUs belongs to a rank."""

from __future__ import annotations

import os
from collections.abc import MutableMapping, Sequence

from common.errors import UserError

AMD = "ROCR_VISIBLE_DEVICES"
"""AMD's counterpart of CUDA_VISIBLE_DEVICES. Slurm sets both for GPUs of any vendor, and verl's RL
refuses that.
"""


def drop_amd(environment: MutableMapping[str, str]) -> None:
    """Removes AMD's variable if CUDA's is set."""
    if "CUDA_VISIBLE_DEVICES" in environment:
        environment.pop(AMD, None)


def local_device() -> int:
    """Returns the number of this rank's GPU among those that it sees: the rank's number on the
    node, or 0 if Slurm shows each task only one GPU.
    """
    import torch

    return 0 if torch.cuda.device_count() == 1 else int(os.environ["LOCAL_RANK"])


def own_gpu() -> str:
    """Returns an identifier of this rank's GPU, unique on its node."""
    import torch

    # Slices of one GPU have its UUID; a process sees one slice, by its own name.
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    uuid = str(torch.cuda.get_device_properties(local_device()).uuid)
    return visible if visible.startswith("MIG-") else uuid


def check_device(device: str) -> None:
    """Raises UserError when ``device`` is cuda and this rank has no GPU."""
    import torch

    if device != "cuda":
        return
    local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if there == 0:
        raise UserError(
            f"rank {local} of {os.uname().nodename} sees no GPU: warmstart doctor says why"
        )
    if local_device() >= there:
        raise UserError(
            f"rank {local} of {os.uname().nodename} sees {there} GPUs, and each rank needs its "
            f"own: set --ntasks-per-node={there}, or outside Slurm train.ranks={there}"
        )


def sharing(gpus: Sequence[tuple[str, str]]) -> str:
    """Returns which ranks share a GPU and how to fix it, as text; empty if none do. ``gpus`` has
    each rank's node and GPU.
    """
    ranks: dict[tuple[str, str], list[int]] = {}
    for rank, gpu in enumerate(gpus):
        ranks.setdefault(gpu, []).append(rank)
    for (node, _), several in ranks.items():
        if len(several) > 1:
            return (
                f"ranks {', '.join(map(str, several))} on {node} have the same GPU: ask for one "
                "per rank (sbatch --gpus-per-node=N), and check the binding (--gpu-bind)"
            )
    return ""
