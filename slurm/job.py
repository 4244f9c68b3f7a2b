"""The Python part of a job script: in the job it trains, evaluates, runs RL or builds a dataset; on
the login node it checks the arguments and submits the script, or with --dry-run prints what would
run.

    python -m slurm.job SCRIPT train RECIPE [ARGUMENT ...]
    python -m slurm.job SCRIPT eval|rl|data [ARGUMENT ...]

slurm/lib.sh calls it. An argument is an option of sbatch, or a word: key=value, a run, a step.
Given options of sbatch override the site's.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from common.errors import UserError
from common.exit_codes import DONE, reported
from slurm.commands import command_lines, environment
from slurm.commands.command_lines import Job
from slurm.commands.options import Given, parse
from slurm.evaluation import evaluate
from slurm.rl import reinforce
from slurm.training import train
from trainer.recipe import load as configs
from trainer.recipe import site
from trainer.run.frozen_config import choose

USAGE_TEXT = """usage: {script} [--dry-run] [OPTION ...] {words}
OPTION is one of sbatch's, in any form and at any place: --nodes=2, --nodes 2, -N2, -t 12:00:00.
--dry-run submits nothing: it prints what would run and what is wrong with it."""
WORDS = {
    "train": "[recipe=NAME|PATH] [key=value ...]",
    "eval": "RUN base|STEP|avg-NAME|rl-N [key=value ...]",
    "rl": "RUN [STEP] [key=value ...]",
    "data": "RECIPE [key=value ...]",
}
SITE_OPTIONS = {kind: f"{kind.upper()}_OPTIONS" for kind in WORDS}
"""The site's options of sbatch, by kind of job."""
GPUS = re.compile("SBATCH_.*(GPU|GRES)")
"""sbatch's variables that ask for GPUs."""
LOOKS_ONLY = ("test-only", None)


def main() -> int:
    """Returns the exit code; to submit, this process becomes sbatch."""
    script, kind, *arguments = sys.argv[1:]
    return reported(lambda: _main(Path(script), kind, arguments))


def _main(script: Path, kind: str, arguments: Sequence[str]) -> int:
    given = parse(arguments)
    if given.help:
        print(USAGE_TEXT.format(script=f"slurm/{script.name}", words=WORDS[kind]))
        return DONE
    # Slurm runs a copy of the script. The one in the checkout submits, also in an allocation.
    in_job = "SLURM_JOB_ID" in os.environ and not (script.parent / "lib.sh").exists()
    if in_job and not given.dry_run:
        if given.options:
            before = " ".join(given.lines)
            raise UserError(f"put sbatch's options before the script: sbatch {before} SCRIPT")
        job = Job.here()
    else:
        # A training script adds the first word, its recipe, itself.
        typed = given.words[1:] if kind == "train" else given.words
        if kind == "data":
            for name in filter(GPUS.match, list(os.environ)):
                del os.environ[name]
        own = parse(site.words(SITE_OPTIONS[kind], "OPTION"), known=False)
        job = _outside(script, replace(given, options=[*own, *given]), typed)
        if not job.dry_run and LOOKS_ONLY in given.options:
            command_lines.submit(job)
    if job.dry_run or not job.submission:
        environment.prepare(os.environ, job.allocation.cpus)
    work = {"train": train, "eval": evaluate, "rl": reinforce, "data": build}
    return work[kind](job, given.words)


def build(job: Job, words: Sequence[str]) -> int:
    """Becomes ``warmstart data`` with one worker per CPU of the job, unless the recipe sets their
    number; outside a job, submits one. Returns the exit code of a dry run.

    A build is not requeued: an unfinished one starts from the beginning. Raises UserError for a
    wrong recipe or override.
    """
    if not words:
        raise UserError(f"usage: slurm/data.sh [OPTION ...] {WORDS['data']}")
    recipe, *overrides = words
    config = choose(partial(configs.load, recipe), overrides)[1]
    if config.data.processes is None:
        overrides.append(f"data.processes={job.allocation.cpus}")
    command = [sys.executable, "-m", "warmstart", "data", recipe, *overrides]
    if job.dry_run:
        print(command_lines.submission_line(job), command_lines.line(command), sep="\n")
        return DONE
    if job.submission:
        command_lines.submit(job)
    os.execv(command[0], command)


def _outside(script: Path, given: Given, words: Sequence[str]) -> Job:
    """Returns the job to submit. A placeholder left in its options is reported in a dry run,
    otherwise refused.
    """
    job = command_lines.planned(script, given, words)
    if fault := site.placeholder(command_lines.asked(script, given)):
        if not job.dry_run:
            raise UserError(fault)
        print(f"warmstart: {fault}", file=sys.stderr)
    return job


if __name__ == "__main__":
    sys.exit(main())
