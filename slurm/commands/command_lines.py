"""A job's allocation and its command lines: sbatch and srun, quoted for a shell."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from common.errors import UserError
from slurm.commands.options import VALUED, Given, parse
from trainer.doctor.size import Size
from trainer.doctor.slurm import outside, script_of
from trainer.recipe import site

FIRST_NODE = "FIRST_NODE"
"""Placeholder for the first node's address in a dry run."""
VARIABLES = {"array": "SBATCH_ARRAY_INX", "time": "SBATCH_TIMELIMIT"}
"""sbatch's variables whose names differ from their options'."""
TOGETHER = 60
"""Maximum seconds between the ends of tasks that end together. Without a limit srun would wait
forever for a task whose node has lost its daemon.
"""
NO_VARIABLE = {"nodes", "ntasks", "ntasks-per-node", "cpus-per-task"}
"""Options for which sbatch reads no variable."""
GPU_OPTIONS = {"gpus", "gpus-per-node", "gpus-per-task"}
DEFAULT_NOTICE = 60
"""Slurm's own, in seconds."""


@dataclass(frozen=True)
class Allocation:
    """The resources requested from sbatch."""

    nodes: int
    tasks: int
    """Tasks per node."""
    cpus: int
    """CPUs per task."""
    gpus: int | None = None
    """GPUs per node; None if the job did not request a number."""

    @staticmethod
    def here() -> Allocation:
        """Returns the allocation of the job that this process runs in."""
        names = ("SLURM_JOB_NUM_NODES", "SLURM_NTASKS_PER_NODE", "SLURM_CPUS_PER_TASK")
        return Allocation(*(int(os.environ[name]) for name in names))

    @staticmethod
    def of(asked: Mapping[str, str]) -> Allocation:
        """Returns the allocation that these sbatch options request, given by name.

        Raises UserError when one of them is not a plain number.
        """
        nodes, tasks, cpus = (
            _number(name, asked.get(name, "1"))
            for name in ("nodes", "ntasks-per-node", "cpus-per-task")
        )
        return Allocation(nodes, tasks, cpus, _gpus(asked, nodes, tasks))

    @property
    def size(self) -> Size:
        """The allocation's size, for the checks of a run."""
        return Size(self.nodes, self.tasks, self.gpus)

    def srun(self, *words: str, wait: int = TOGETHER) -> list[str]:
        """Returns the srun command that runs ``words`` in every task; ``words`` may begin with
        additional srun options.

        ``wait`` is the number of seconds after the first task's end at which srun kills the others;
        0 is never.
        """
        return [
            "srun",
            f"--nodes={self.nodes}",
            f"--ntasks-per-node={self.tasks}",
            # srun does not inherit this option from sbatch.
            f"--cpus-per-task={self.cpus}",
            "--export=ALL",
            f"--wait={wait}",
            *words,
        ]


@dataclass(frozen=True)
class Job:
    """A job script's allocation; outside the job, also how to submit it."""

    allocation: Allocation
    index: str = ""
    """Index in the job array (outside the job: the first one); empty without an array."""
    submission: tuple[str, ...] = ()
    """sbatch's command line; empty in the job."""
    dry_run: bool = False
    notice: int = 0
    """Seconds between the stop request and the time limit; known only outside the job."""

    @staticmethod
    def here() -> Job:
        """Returns the job that this process runs in."""
        return Job(Allocation.here(), os.environ.get("SLURM_ARRAY_TASK_ID", ""))


def asked(script: Path, options: Iterable[tuple[str, str | None]]) -> dict[str, str]:
    """Returns sbatch's options by name: the script's #SBATCH lines, overridden by the SBATCH_*
    variables, overridden by ``options``.
    """
    lines = re.findall(r"^#SBATCH\s+(.*)", script.read_text(encoding="utf-8"), re.MULTILINE)
    own = parse([word for line in lines for word in shlex.split(line, comments=True)])
    variables = {
        name: os.environ[variable]
        for name in VALUED.keys() - NO_VARIABLE
        if (variable := VARIABLES.get(name, "SBATCH_" + name.upper().replace("-", "_")))
        in os.environ
    }
    found: dict[str, str | None] = {}
    for level in (dict(own), variables, dict(options)):
        if any(_asks_for_gpus(*option) for option in level.items()):
            # Of several ways to ask for GPUs, the last level's counts.
            found = {
                name: value for name, value in found.items() if not _asks_for_gpus(name, value)
            }
        found |= level
    return {name: value or "" for name, value in found.items()}


def _asks_for_gpus(name: str, value: str | None) -> bool:
    return name in GPU_OPTIONS or (name == "gres" and "gpu" in (value or ""))


def planned(script: Path, given: Given, words: Sequence[str]) -> Job:
    """Returns the job that sbatch would start from the script with the given options and the
    arguments ``words``.
    """
    wanted = asked(script, given)
    index = re.search(r"\d+", wanted.get("array", ""))
    notice = re.search(r"@(\d+)", wanted.get("signal", ""))
    return Job(
        Allocation.of(wanted),
        index[0] if index else "",
        ("sbatch", *given.lines, f"slurm/{script.name}", *words),
        given.dry_run,
        int(notice[1]) if notice else DEFAULT_NOTICE,
    )


def size_of(recipe: str, options: Mapping[str, str]) -> Size:
    """Returns the size of a job of the recipe's script with these options, by name, which override
    the site's.
    """
    own = parse(site.words("TRAIN_OPTIONS", "OPTION"), known=False)
    size = Allocation.of(asked(script_of(recipe), [*own, *options.items()])).size
    return replace(size, options=tuple(f"--{name}={value}" for name, value in options.items()))


def submission_line(job: Job) -> str:
    """Returns the command that submits the job, for a shell, with the site's SBATCH_* variables."""
    given = {name: value for name, value in sorted(os.environ.items()) if name[:7] == "SBATCH_"}
    return line(job.submission, given)


def submit(job: Job) -> NoReturn:
    """Replaces this process with sbatch. Raises UserError when there is no sbatch."""
    try:
        os.execvpe(job.submission[0], job.submission, outside())
    except FileNotFoundError as e:
        raise UserError(
            "there is no sbatch on this machine: submit on the cluster's login node; "
            "warmstart train RECIPE trains here"
        ) from e


def _number(name: str, value: str) -> int:
    if not re.fullmatch(r"0*[1-9]\d{0,5}", value):
        raise UserError(f"--{name}={value}: give a single number")
    return int(value)


def _gpus(asked: Mapping[str, str], nodes: int, tasks: int) -> int | None:
    """Returns the GPUs per node: the largest number that one of the options requests."""
    found = []
    for name, share in (("gpus-per-node", 1), ("gpus", nodes), ("gpus-per-task", 1 / tasks)):
        if count := re.fullmatch(r"(?:[^:,]+:)?(\d+)", asked.get(name, "")):
            found.append(int(int(count[1]) / share))
    for item in asked.get("gres", "").split(","):
        if count := re.fullmatch(r"gpu(?::[^:]*[^:\d][^:]*)?(?::(\d+))?", item):
            found.append(int(count[1] or 1))
    return max(found, default=None)


def line(words: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """Returns the command quoted for a shell, with the environment variables in front."""
    given = (f"{name}={shlex.quote(value)}" for name, value in (environment or {}).items())
    return " ".join([*given, shlex.join(words)])
