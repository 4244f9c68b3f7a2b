"""A job's allocation and its command lines: sbatch, srun, the Python on the nodes; quoted for a
shell.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

FIRST_NODE = "FIRST_NODE"
"""Placeholder for the first node's address in a dry run."""


@dataclass(frozen=True)
class Allocation:
    """The resources requested from sbatch."""

    nodes: int
    tasks: int
    """Tasks per node."""
    cpus: int
    """CPUs per task."""

    @staticmethod
    def here() -> Allocation:
        """Returns the allocation of the job that this process runs in."""
        names = ("SLURM_JOB_NUM_NODES", "SLURM_NTASKS_PER_NODE", "SLURM_CPUS_PER_TASK")
        return Allocation(*(int(os.environ[name]) for name in names))

    @staticmethod
    def of(asked: Mapping[str, str]) -> Allocation:
        """Returns the allocation that these sbatch options request."""
        return Allocation(
            *(int(asked[name]) for name in ("--nodes", "--ntasks-per-node", "--cpus-per-task"))
        )

    def srun(self, *words: str) -> list[str]:
        """Returns the srun command that runs ``words`` in every task; ``words`` may begin with more
        srun options.
        """
        return [
            "srun",
            f"--nodes={self.nodes}",
            f"--ntasks-per-node={self.tasks}",
            # srun does not inherit this option from sbatch.
            f"--cpus-per-task={self.cpus}",
            "--export=ALL",
            # Tasks end together. By default srun waits forever for a task whose node has lost its
            # daemon.
            "--wait=60",
            *words,
        ]


@dataclass(frozen=True)
class Job:
    """A job script's allocation; in a dry run also its submission line."""

    allocation: Allocation
    submission: str = ""
    notice: int = 0
    """Seconds between the stop request and the time limit; known in a dry run only."""


def planned(script: Path, options: Sequence[str], words: Sequence[str]) -> Job:
    """Returns the job that sbatch would start from the script's #SBATCH lines and ``options``,
    which take precedence.

    The submission line shows the site's SBATCH_* variables.
    """
    site = {name: value for name, value in sorted(os.environ.items()) if name.startswith("SBATCH_")}
    own = re.findall(r"^#SBATCH (\S+)", script.read_text(encoding="utf-8"), re.MULTILINE)
    asked = dict(option.partition("=")[::2] for option in [*own, *options])
    submission = line(["sbatch", *options, f"slurm/{script.name}", *words], site)
    return Job(Allocation.of(asked), submission, int(asked["--signal"].partition("@")[2]))


def stack() -> list[str]:
    """Returns the command of the Python that has the ranks' and engines' packages: in the image at
    IMAGE, if set.

    Slurm's commands always run outside the image, with this process's own Python.
    """
    if image := os.environ.get("IMAGE"):
        here = os.getcwd()
        return ["apptainer", "exec", "--nv", "--bind", here, "--pwd", here, image, "python"]
    return [sys.executable]


def line(words: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """Returns the command quoted for a shell, with the environment variables in front."""
    given = (f"{name}={shlex.quote(value)}" for name, value in (environment or {}).items())
    return " ".join([*given, shlex.join(words)])
