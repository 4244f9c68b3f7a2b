"""A job's command lines: its allocation, how it is submitted, the program on its nodes, a line as a shell reads it."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

FIRST_NODE = "FIRST_NODE"
"""Its address in a dry run."""


@dataclass(frozen=True)
class Allocation:
    """What sbatch was asked for."""

    nodes: int
    tasks: int
    """On each node."""
    cpus: int
    """Of each task."""

    @staticmethod
    def here() -> Allocation:
        """That of the job around this process."""
        names = ("SLURM_JOB_NUM_NODES", "SLURM_NTASKS_PER_NODE", "SLURM_CPUS_PER_TASK")
        return Allocation(*(int(os.environ[name]) for name in names))

    @staticmethod
    def of(asked: Mapping[str, str]) -> Allocation:
        """That of sbatch's options."""
        return Allocation(*(int(asked[name]) for name in ("--nodes", "--ntasks-per-node", "--cpus-per-task")))

    def srun(self, *words: str) -> list[str]:
        """Runs ``words`` as every task; each with its own options of srun first."""
        return [
            "srun", f"--nodes={self.nodes}", f"--ntasks-per-node={self.tasks}",
            # srun does not inherit sbatch's.
            f"--cpus-per-task={self.cpus}",
            "--export=ALL",
            # Tasks end together; one whose node's daemon is gone would be waited for without end.
            "--wait=60",
            *words,
        ]  # fmt: skip


@dataclass(frozen=True)
class Job:
    """A script's allocation; where it only shows what would run, also how it is submitted."""

    allocation: Allocation
    submission: str = ""
    notice: int = 0
    """Seconds between the request to stop and the time limit."""


def planned(script: Path, options: Sequence[str], words: Sequence[str]) -> Job:
    """What sbatch would be asked for, with the site's variables."""
    site = {name: value for name, value in sorted(os.environ.items()) if name.startswith("SBATCH_")}
    own = re.findall(r"^#SBATCH (\S+)", script.read_text(encoding="utf-8"), re.MULTILINE)
    asked = dict(option.partition("=")[::2] for option in [*own, *options])
    submission = line(["sbatch", *options, f"slurm/{script.name}", *words], site)
    return Job(Allocation.of(asked), submission, int(asked["--signal"].partition("@")[2]))


def stack() -> list[str]:
    """Python with the ranks' and engines' packages: in the image where the site has one.

    What talks to Slurm is always this process's own, on the host.
    """
    if image := os.environ.get("IMAGE"):
        here = os.getcwd()
        return ["apptainer", "exec", "--nv", "--bind", here, "--pwd", here, image, "python"]
    return [sys.executable]


def line(words: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """As a shell would read it, variables first."""
    given = (f"{name}={shlex.quote(value)}" for name, value in (environment or {}).items())
    return " ".join([*given, shlex.join(words)])
