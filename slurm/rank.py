"""One srun task: trains as one rank; rank 0 leaves the exit code in the run.

    srun ... python -m slurm.rank RUN RECIPE [key=value ...]

srun's own code is the largest of all tasks', those that it ended after the first failure included, and so says
nothing about why training ended.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import warmstart
from data_prep.files import write_text


def code_file(run: Path, job: str) -> Path:
    """Where rank 0 of a job leaves its exit code."""
    return run / f".exit-{job}"


def main() -> int:
    """Returns the exit code of ``warmstart train``."""
    run, *words = sys.argv[1:]
    path = code_file(Path(run), os.environ["SLURM_JOB_ID"])
    first = os.environ["SLURM_PROCID"] == "0"
    if first:
        path.unlink(missing_ok=True)  # of the same job, before it was requeued
    code = warmstart.main(["train", *words])
    if first:
        write_text(path, f"{code}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
