"""The Python part of a job script: in the job it trains or evaluates; on the login node it checks
the arguments and submits the script, or with --dry-run prints what would run.

    python -m slurm.job SCRIPT train [SITE'S OPTION ...] -- RECIPE [ARGUMENT ...]
    python -m slurm.job SCRIPT eval [SITE'S OPTION ...] -- [ARGUMENT ...]

slurm/lib.sh calls it. An argument is an option of sbatch, or a word: key=value, a run, a step. The
site's options, EVAL_OPTIONS, count for evaluations.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from common.errors import UserError
from common.exit_codes import DONE, USAGE
from slurm import command_lines, environment
from slurm.command_lines import Job
from slurm.evaluation import evaluate
from slurm.options import Given, parse
from slurm.training import train
from trainer.recipe import site

USAGE_TEXT = """usage: {script} [--dry-run] [OPTION ...] {words}
OPTION is one of sbatch's, in any form and at any place: --nodes=2, --nodes 2, -N2, -t 12:00:00.
--dry-run submits nothing: it prints what would run and what is wrong with it."""
WORDS = {"train": "[recipe=NAME] [key=value ...]", "eval": "RUN base|STEP [key=value ...]"}
LOOKS_ONLY = ("test-only", None)


def main() -> int:
    """Returns the exit code; submitting, this process becomes sbatch."""
    script, kind, *rest = sys.argv[1:]
    first = rest.index("--")
    try:
        return _main(Path(script), kind, rest[:first], rest[first + 1 :])
    except UserError as e:
        print(f"warmstart: {e}", file=sys.stderr)
        return USAGE


def _main(script: Path, kind: str, own: Sequence[str], arguments: Sequence[str]) -> int:
    given = parse(arguments)
    if given.help:
        print(USAGE_TEXT.format(script=f"slurm/{script.name}", words=WORDS[kind]))
        return DONE
    # Slurm runs a copy of the script. The one in the checkout submits, also in an allocation.
    in_job = "SLURM_JOB_ID" in os.environ and not (script.parent / "lib.sh").exists()
    if in_job and not given.dry_run:
        if given.options:
            before = " ".join(given.lines)
            raise UserError(f"sbatch's options stand before the script: sbatch {before} SCRIPT")
        job = Job.here()
    else:
        # A training script adds the first word, its recipe, itself.
        typed = given.words[1:] if kind == "train" else given.words
        job = _outside(script, parse([*own, *arguments]) if kind == "eval" else given, typed)
        if not job.dry_run and LOOKS_ONLY in given.options:
            command_lines.submit(job)
    if job.dry_run or not job.submission:
        environment.prepare(os.environ, job.allocation.cpus)
    return train(job, given.words) if kind == "train" else evaluate(job, given.words)


def _outside(script: Path, given: Given, words: Sequence[str]) -> Job:
    """Returns the job to submit; a placeholder is told in a dry run, else refused."""
    job = command_lines.planned(script, given, words)
    if fault := site.placeholder(command_lines.asked(script, given)):
        if not job.dry_run:
            raise UserError(fault)
        print(f"warmstart: {fault}", file=sys.stderr)
    return job


if __name__ == "__main__":
    sys.exit(main())
