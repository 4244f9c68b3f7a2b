"""Checks what each rank gets: cores, its own GPU (as fast as the others'), a network interface."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from omegaconf import DictConfig

from trainer.doctor.findings import FATAL, OK, Finding
from trainer.doctor.nodes import Note, shared_gpus
from trainer.process.gpu_binding import local_device, own_gpu
from trainer.process.network import interface
from trainer.process.process_group import GLOO, NODE_NAMES, under_slurm

NCCL = "NCCL_SOCKET_IFNAME"
SLOW = "speed"
SLOW_SHARE = 0.7
"""Share of the median rank's speed below which a rank delays every step."""


def cores() -> Iterator[Finding]:
    """Yields the finding on the cores that a rank may use, compared with those that it
    requested.
    """
    asked = os.environ.get("SLURM_CPUS_PER_TASK")
    if asked is None or not under_slurm(os.environ):
        return
    here, wanted = len(os.sched_getaffinity(0)), min(int(asked), os.cpu_count() or 1)
    text = f"a rank may use {here}, --cpus-per-task={asked}"
    if here < wanted:
        fix = (
            f"srun --cpus-per-task={asked}, or in a job script SRUN_OPTIONS=(--cpu-bind=none) in "
            "slurm/site.env"
        )
        yield Finding(FATAL, "CPUs", text, fix)
    else:
        yield Finding(OK, "CPUs", text)


def gpu(config: DictConfig) -> str:
    """Returns an identifier of this rank's GPU, unique on its node; empty if it has none."""
    if config.device != "cuda":
        return ""
    import torch

    return own_gpu() if local_device() < torch.cuda.device_count() else ""


def sharing(notes: Sequence[Note]) -> Finding | None:
    """Returns the finding that ranks share a GPU; None if none do."""
    fault = shared_gpus(notes)
    return (
        Finding(FATAL, "GPU binding", fault, "--gpu-bind=none in SRUN_OPTIONS") if fault else None
    )


def slowest(seconds: Sequence[float], notes: Sequence[Note], device: str) -> dict[str, Finding]:
    """Returns, by node, the finding on the rank that took the longest for the same work; empty
    without one. On CPUs it is never a fault, because other work on them slows ranks too.
    """
    if not seconds:
        return {}
    rank = max(range(len(seconds)), key=seconds.__getitem__)
    host, share = notes[rank].host, median(seconds) / seconds[rank]
    text = f"the slowest is rank {rank} with {share:.0%} of the median rank's speed"
    if device == "cuda" and share < SLOW_SHARE:
        fix = f"nvidia-smi -q -d PERFORMANCE,TEMPERATURE on {host}; sbatch --exclude={host}"
        return {host: Finding(FATAL, SLOW, text, fix)}
    return {host: Finding(OK, SLOW, text)}


def network(address: str, port: int) -> Finding:
    """Returns the finding on where the ranks meet, and over which interfaces."""
    chosen = os.environ.get(NCCL)
    nccl = f"NCCL over {chosen}" if chosen else f"NCCL chooses one itself ({NCCL} is not set)"
    gloo = os.environ.get(GLOO) or interface(address) or "the one of the host's name"
    return Finding(OK, "network", f"ranks meet at {address}:{port}; Gloo over {gloo}, {nccl}")


def ranks_by_node(environment: Mapping[str, str]) -> dict[str, int]:
    """Returns the number of this step's tasks by node; empty if that is not known. A job script
    names the nodes, because a container may lack Slurm's commands.
    """
    shown = environment.get(NODE_NAMES, "").split()
    tasks = environment.get("SLURM_STEP_TASKS_PER_NODE", "")
    counts = [
        int(count)
        for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", tasks)
        for _ in range(int(times or 1))
    ]
    return dict(zip(shown, counts, strict=True)) if len(shown) == len(counts) else {}
