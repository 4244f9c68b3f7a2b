"""The exit code of a step's first task, passed to the job script in a file of the run's folder.
srun's own exit code is the largest of all tasks, including killed ones.
"""

from __future__ import annotations

import os
from pathlib import Path

from common.files import write_text
from trainer.run.folder import Run


def is_first() -> bool:
    """Returns whether this is task 0, whose exit code counts for the Slurm step."""
    return os.environ["SLURM_PROCID"] == "0"


def leave_code(run: Path, code: int) -> None:
    """Writes the first task's exit code; the task calls this when its work has ended."""
    write_text(Run(run).exit_code(os.environ["SLURM_JOB_ID"]), f"{code}\n")


def take_code(run: Path, job: str) -> int | None:
    """Reads and deletes the first task's exit code. Returns None if it wrote none."""
    path = Run(run).exit_code(job)
    code = int(path.read_text()) if path.exists() else None
    path.unlink(missing_ok=True)
    return code
