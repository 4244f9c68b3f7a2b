"""Checks that a run uses the nodes and GPUs that a job asks for, before it waits in the queue."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from omegaconf import DictConfig, OmegaConf

from common.errors import UserError
from trainer.doctor.findings import FATAL, OK, WARNING, Finding
from trainer.planning.planner import Planner, recommend

WHAT = "size"
MOST, GOOD = 0.5, 0.8
"""Shares of the GPUs' time in which ranks work: below the first, most of the time is lost; below
the second, much of it.
"""
ONE_RANK = "--nodes=1 --ntasks-per-node=1 --gpus-per-node=1"


@dataclass(frozen=True)
class Size:
    """The resources that a job requests."""

    nodes: int
    ranks: int
    """Tasks per node: each is a rank with a GPU of its own."""
    gpus: int | None = None
    """GPUs per node; None if that is not known."""
    options: tuple[str, ...] = ()
    """Options of sbatch with which the job's script requests this size."""
    granted: bool = False
    """Whether a running job has this size."""

    @property
    def text(self) -> str:
        """Returns the size as text."""
        return f"{self.nodes * self.ranks:,} ranks ({self.nodes:,} x {self.ranks})"

    @staticmethod
    def of(config: DictConfig) -> Size:
        """Returns the size that the recipe is planned for: its cluster or, on CPUs, this machine's
        ranks.
        """
        if config.device == "cpu":
            return Size(1, config.train.ranks)
        return Size(config.cluster.nodes, config.cluster.gpus_per_node)

    @staticmethod
    def here(ranks: int | None = None) -> Size:
        """Returns the allocation of the job that this process runs in; with ``ranks``, this node's
        share for that many ranks.
        """
        nodes = int(os.environ.get("SLURM_JOB_NUM_NODES", 1))
        tasks = os.environ.get("SLURM_STEP_NUM_TASKS") or os.environ.get("SLURM_NTASKS", "1")
        shown = os.environ.get("SLURM_GPUS_ON_NODE", "")
        gpus = int(shown) if shown.isdigit() else None
        if ranks is not None:
            return Size(1, ranks, gpus, granted=True)
        return Size(nodes, -(-int(tasks) // nodes), gpus, granted=True)


def sized(config: DictConfig, size: Size) -> DictConfig:
    """Returns the configuration with ``size`` as its cluster, for forecasts."""
    planned = config.copy()
    OmegaConf.set_readonly(planned, False)
    planned.cluster.nodes, planned.cluster.gpus_per_node = size.nodes, size.ranks
    OmegaConf.set_readonly(planned, True)
    return planned


def planning(config: DictConfig) -> str:
    """Returns the command that compares layouts on the cluster of a ``sized`` configuration."""
    cluster = config.cluster
    size = f"cluster.nodes={cluster.nodes} cluster.gpus_per_node={cluster.gpus_per_node}"
    return f"warmstart plan {config.name} {size}"


def check(config: DictConfig, size: Size) -> Iterator[Finding]:
    """Yields one finding, with the sbatch options or the keys that correct it. The finding is fatal
    if the run would fail or waste most of the GPUs' time. It is a warning if the run would waste
    much of it, or if the job was granted more GPUs than it has ranks: some sites grant whole nodes.
    """
    fault = _impossible(config, size)
    if fault is not None:
        yield Finding(FATAL, WHAT, *fault)
        return
    gpus = size.gpus if config.device == "cuda" else None
    busy = size.ranks / gpus if gpus else 1.0
    if busy < GOOD:
        text = f"{size.ranks} of {gpus} GPUs per node have a rank"
        more = f"--ntasks-per-node={gpus}"
        less = f"--gpus-per-node={size.ranks}"
        level = WARNING if size.granted else _level(busy)
        yield Finding(level, WHAT, text, less if config.train.lora_rank else more)
        return
    balance, fix = _balance(sized(config, size)) if config.device == "cuda" else (None, "")
    if balance is None:
        yield Finding(OK, WHAT, f"{size.text} for batches of {config.train.batch_size} rows")
        return
    text = f"{size.text} for batches of {config.train.batch_size} rows: balance {balance:.2f}"
    if balance >= GOOD:
        yield Finding(OK, WHAT, text)
        return
    lost = f"; ranks wait {1 - balance:.0%} of the time for the slowest"
    yield Finding(_level(balance), WHAT, text + lost, fix)


def _level(share: float) -> str:
    return FATAL if share < MOST else WARNING


def _impossible(config: DictConfig, size: Size) -> tuple[str, str] | None:
    """Returns (why the run would fail at this size, the fix); None where it would not."""
    train, ranks = config.train, size.nodes * size.ranks
    if train.lora_rank and ranks > 1:
        return f"a QLoRA trains on one GPU, not on {size.text}", ONE_RANK
    if config.device == "cuda" and size.gpus is not None and size.ranks > size.gpus:
        text = f"{size.ranks} ranks per node on {size.gpus} GPUs: each rank needs its own"
        return text, f"--gpus-per-node={size.ranks}, or --ntasks-per-node={max(1, size.gpus)}"
    degree = train.sequence_parallel
    if ranks % degree:
        less = next(d for d in count(degree - 1, -1) if ranks % d == 0)
        text = f"train.sequence_parallel={degree} does not divide {size.text}"
        return text, f"train.sequence_parallel={less}"
    groups = ranks // degree
    if train.batch_size < groups:
        text = (
            f"train.batch_size={train.batch_size} leaves {groups - train.batch_size:,} of "
            f"{groups:,} data-parallel groups without rows: {size.text}, "
            f"train.sequence_parallel={degree}"
        )
        nodes = max(1, train.batch_size * degree // size.ranks)
        return text, f"--nodes={nodes}, or train.batch_size={groups}"
    return None


def _balance(config: DictConfig) -> tuple[float | None, str]:
    """Returns (the forecast share of the time in which ranks work, the fix if it is low); None
    where there is no forecast.
    """
    try:
        planner = Planner(config)
        own = planner.own()
    except UserError:  # a finding of the plan
        return None, ""
    if own is None or own.balance >= GOOD:
        return None if own is None else own.balance, ""
    best, ways = recommend(list(planner.layouts())), []
    if best is not None and best.balance >= GOOD:
        ways.append(best.overrides)
    if nodes := _fewer(config):
        ways.append(f"--nodes={nodes}")
    return own.balance, ", or ".join(ways) or planning(config)


def _fewer(config: DictConfig) -> int | None:
    """Returns the largest of a half, a quarter, ... of the nodes at which the recipe is
    balanced.
    """
    nodes = config.cluster.nodes // 2
    while nodes:
        own = Planner(sized(config, Size(nodes, config.cluster.gpus_per_node))).own()
        if own is not None and own.balance >= GOOD:
            return nodes
        nodes //= 2
    return None
