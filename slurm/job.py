"""The Python part of a job script: parses its arguments and runs a training or an evaluation job.

    python -m slurm.job SCRIPT [OPTION ...] -- train [SITE'S OVERRIDE ...] -- RECIPE [recipe=NAME]
    [key=value ...] python -m slurm.job SCRIPT [OPTION ...] -- eval [SITE'S OVERRIDE ...] -- RUN
    base|STEP [key=value ...]

slurm/lib.sh calls it on the job's first node. With ``--dry-run`` among sbatch's options it is
called on the login node and prints what would run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from common.errors import UserError
from common.exit_codes import USAGE
from slurm import command_lines
from slurm.evaluation import evaluate
from slurm.training import train


def main() -> int:
    """Returns the job's exit code."""
    (script, *options), (kind, *site), words = _groups(sys.argv[1:])
    # Otherwise job steps would also start with an empty environment after sbatch --export=NONE.
    os.environ |= {"SLURM_EXPORT_ENV": "ALL", "PYTHONUNBUFFERED": "1"}
    try:
        if "--dry-run" in options:
            given = [option for option in options if option != "--dry-run"]
            # A training script adds the first word, its recipe, itself.
            typed = words[1:] if kind == "train" else words
            job = command_lines.planned(Path(script), given, typed)
        else:
            job = command_lines.Job(command_lines.Allocation.here())
        os.environ["OMP_NUM_THREADS"] = str(job.allocation.cpus)
        return train(job, words, site) if kind == "train" else evaluate(job, words)
    except UserError as e:
        print(f"warmstart: {e}", file=sys.stderr)
        return USAGE


def _groups(words: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Returns the words before, between and after the first two ``--``; those after may contain
    more ``--``.
    """
    first = words.index("--")
    second = words.index("--", first + 1)
    return list(words[:first]), list(words[first + 1 : second]), list(words[second + 1 :])


if __name__ == "__main__":
    sys.exit(main())
