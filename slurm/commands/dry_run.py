"""The facts that a dry run prints after the command lines: rendezvous, time-outs, and checkpoint
files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from omegaconf import DictConfig

from slurm.commands.command_lines import Job
from trainer.batching.flops import Shape
from trainer.doctor.disk import checkpoint_bytes
from trainer.doctor.findings import Located, table
from trainer.planning.workload import shape_of
from trainer.process.watchdog import SET_UP_MINUTES
from trainer.run.folder import FILE_BYTES


def checkpoint_files(shape: Shape, ranks: int) -> int:
    """Returns the number of files of one checkpoint: each rank's shards and RNG state, the state,
    the manifest.
    """
    shards = math.ceil(checkpoint_bytes(shape) / ranks / FILE_BYTES)
    return ranks * (shards + 1) + 2


def page(config: DictConfig, job: Job, findings: Sequence[Located]) -> str:
    """Returns the facts, one per line, then the findings on the job's size. Raises UserError when
    the model's shape is not known.
    """
    ranks, signal = job.allocation.nodes * job.allocation.tasks, job.notice
    shape, settings = shape_of(config), config.train
    size, files = checkpoint_bytes(shape) / 1e9, checkpoint_files(shape, ranks)
    kept, set_up = settings.keep_last + 1, max(SET_UP_MINUTES, settings.hang_minutes)
    lines = {
        "rendezvous": f"rank 0 of {ranks} on the first node listens on MASTER_PORT; "
        f"the others have {2 * set_up:g} minutes to connect",
        "timeouts": f"set-up and first step {set_up:g} minutes, "
        f"then {settings.hang_minutes:g} without progress; "
        f"asked to stop {signal} s before the time limit",
        "checkpoint": f"{files:,} files of at most {FILE_BYTES >> 20} MiB, {size:,.3g} GB; "
        f"{kept} of them "
        f"while one is written: {kept * files:,} files, {kept * size:,.3g} GB",
    }
    if job.index:
        lines["array"] = f"index {job.index} is shown"
    facts = [f"# {name}: {text}" for name, text in lines.items()]
    return "\n".join([*facts, *(f"# {line}" for line in table(findings).splitlines())])
