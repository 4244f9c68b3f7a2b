"""A step of a job: a Ray cluster of its nodes with its own token, and a command on the
first node.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slurm.commands import command_lines
from slurm.commands.stack import Stack
from slurm.nodes.child_process import Stoppable
from slurm.nodes.ray_node import SIZE
from trainer.process.network import addresses, free_port
from trainer.run.folder import Run


@dataclass(frozen=True)
class RayStep:
    """One task per node: ``slurm.nodes.ray_node ROOT WORDS``."""

    stack: Stack
    root: str
    """The run's folder."""
    words: Sequence[str]
    size: str
    """Options of ``ray start`` for a node's resources."""

    @property
    def _command(self) -> list[str]:
        task = [*self.stack.python, "-m", "slurm.nodes.ray_node", self.root, *self.words]
        # The work survives the loss of a task; only the first task's exit code counts.
        return self.stack.srun("--kill-on-bad-exit=0", *task, wait=0)

    def _variables(self, address: str) -> dict[str, str]:
        token = Run(Path(self.root).resolve()).ray_token(os.environ.get("SLURM_JOB_ID", "JOB"))
        return {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_ADDRESS": f"{address}:{free_port()}",
            SIZE: self.size,
            **self.stack.variables,
        }

    def line(self) -> str:
        """Returns the step's command line for a dry run."""
        return command_lines.line(self._command, self._variables(command_lines.FIRST_NODE))

    def run(self, work: Stoppable, run: Run) -> int:
        """Runs the step in the job; returns its exit code."""
        here = os.environ["SLURMD_NODENAME"]
        known = addresses(os.environ["SLURM_JOB_NODELIST"], here)
        variables = self._variables(known[here])
        variables["NODE_ADDRESSES"] = " ".join(f"{node}={place}" for node, place in known.items())
        token = Path(variables["RAY_AUTH_TOKEN_PATH"])
        _write_secret(token)
        over = run.exit_code(os.environ["SLURM_JOB_ID"]).exists
        code = work.run(self._command, variables, over=over)
        token.unlink(missing_ok=True)
        return code


def _write_secret(path: Path) -> None:
    """Writes a new random secret that only this user may read."""
    path.unlink(missing_ok=True)  # left by the same job before it was requeued
    with open(
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii"
    ) as f:
        f.write(secrets.token_hex(32))
