"""Finds this process's rank and joins the process group."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from common.errors import UserError


def under_slurm(environment: Mapping[str, str]) -> bool:
    """Returns True inside a task that srun started."""
    return "SLURM_STEP_ID" in environment and "SLURM_PROCID" in environment


def slurm_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns torch's rendezvous variables from Slurm's: one srun task is one rank.

    The job script sets MASTER_ADDR and MASTER_PORT. Without them the address is the first node's,
    and the port is computed from the job and step ids, so that jobs sharing a node do not collide.
    """
    if {"MASTER_ADDR", "MASTER_PORT"} <= environment.keys():
        address, port = environment["MASTER_ADDR"], environment["MASTER_PORT"]
    else:
        nodes = environment.get("SLURM_STEP_NODELIST") or environment["SLURM_JOB_NODELIST"]
        hosts = subprocess.run(
            ["scontrol", "show", "hostnames", nodes], check=True, capture_output=True, text=True
        )
        job, step = int(environment["SLURM_JOB_ID"]), int(environment["SLURM_STEP_ID"])
        # Below Linux's ephemeral port range.
        address, port = hosts.stdout.split()[0], str(20000 + (job * 31 + step) % 12000)
    return {
        "RANK": environment["SLURM_PROCID"],
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "WORLD_SIZE": environment.get("SLURM_STEP_NUM_TASKS") or environment["SLURM_NTASKS"],
        "MASTER_ADDR": address,
        "MASTER_PORT": port,
    }


def check_device(device: str) -> None:
    """Raises UserError when ``device`` is cuda and this rank has no GPU."""
    import torch

    local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if device == "cuda" and local >= there:
        raise UserError(
            f"rank {local} of this node has no GPU ({there} visible): set train.ranks={there} or "
            "device=cpu"
        )


def join(device: str, rendezvous: str, timeout: timedelta = timedelta(minutes=10)) -> int:
    """Joins the process group; returns this process's rank.

    ``rendezvous`` is torch's init_method: a file for ranks of one machine, ``env://`` under Slurm.
    ``timeout`` is how long a collective waits for the other ranks.
    """
    import torch
    import torch.distributed as dist

    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group(
        "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl",
        init_method=rendezvous,
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
        timeout=timeout,
    )
    return dist.get_rank()


def any_rank(*mine: bool) -> list[bool]:
    """Returns for each flag whether it is true on any rank. Collective."""
    import torch
    import torch.distributed as dist

    flags = torch.tensor(mine, dtype=torch.int32)
    dist.all_reduce(flags, dist.ReduceOp.MAX)
    return flags.bool().tolist()


def agree(mine: Any) -> Any:
    """Returns rank 0's value on every rank. Collective."""
    import torch.distributed as dist

    shared = [mine]
    dist.broadcast_object_list(shared)
    return shared[0]
