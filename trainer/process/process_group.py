"""Finds this process's rank and joins the process group."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from common.errors import UserError
from trainer.process.gpu_binding import local_device, own_gpu, sharing
from trainer.process.network import addresses, interface

GLOO = "GLOO_SOCKET_IFNAME"
NODE_NAMES = "NODE_NAMES"
"""Variable with the names of the job's nodes, which a job script sets for its ranks."""


def under_slurm(environment: Mapping[str, str]) -> bool:
    """Returns True in a task that srun started as a rank: one of several, or one of a job script.
    The only task of another step is a shell or a notebook in an allocation, where everything runs
    as on one machine.
    """
    if not {"SLURM_STEP_ID", "SLURM_PROCID"} <= environment.keys():
        return False
    return NODE_NAMES in environment or _tasks(environment) > 1


def slurm_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns torch's rendezvous variables from Slurm's: one srun task is one rank.

    The job script sets MASTER_ADDR and MASTER_PORT. Without them the address is the first node's,
    and the port is computed from the job and step ids, so that jobs sharing a node do not collide.
    Gloo uses the interface that reaches the address, unless GLOO_SOCKET_IFNAME is set: its own
    choice is the interface of the host's name, which may be a loopback address. Raises UserError
    when the address does not resolve.
    """
    address, port = environment.get("MASTER_ADDR"), environment.get("MASTER_PORT")
    if address is None:
        nodes = environment.get("SLURM_STEP_NODELIST") or environment["SLURM_JOB_NODELIST"]
        address = next(iter(addresses(nodes, environment.get("SLURMD_NODENAME", "")).values()))
    if port is None:
        job, step = int(environment["SLURM_JOB_ID"]), int(environment["SLURM_STEP_ID"])
        # Below Linux's ephemeral port range.
        port = str(20000 + (job * 31 + step) % 12000)
    found = {
        "RANK": environment["SLURM_PROCID"],
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "WORLD_SIZE": str(_tasks(environment)),
        "MASTER_ADDR": address,
        "MASTER_PORT": port,
    }
    chosen = environment.get(GLOO) or interface(address)
    return found if chosen is None else found | {GLOO: chosen}


def _tasks(environment: Mapping[str, str]) -> int:
    return int(environment.get("SLURM_STEP_NUM_TASKS") or environment.get("SLURM_NTASKS", "1"))


def join(device: str, rendezvous: str, timeout: timedelta = timedelta(minutes=10)) -> int:
    """Joins the process group; returns this process's rank.

    ``rendezvous`` is torch's init_method: a file for ranks of one machine, ``env://`` under Slurm.
    ``timeout`` is how long a collective waits for the other ranks. Raises UserError on every rank
    when two ranks of a node have the same GPU.
    """
    import torch
    import torch.distributed as dist

    if device == "cuda":
        torch.cuda.set_device(local_device())
    else:
        # Autograd starts its threads at the first backward pass, one for each device that there is.
        # FSDP pretends to have 8 CUDA devices where there is none, so this one comes before.
        torch.zeros((), requires_grad=True).backward()
    dist.init_process_group(
        "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl",
        init_method=rendezvous,
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
        timeout=timeout,
    )
    if device == "cuda" and dist.get_world_size() > 1:
        shared = sharing(everyone((os.uname().nodename, own_gpu())))
        if shared:
            raise UserError(shared)
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


def everyone(mine: Any) -> list[Any]:
    """Returns every rank's value, in the order of the ranks. Collective."""
    import torch.distributed as dist

    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, mine)
    return values
