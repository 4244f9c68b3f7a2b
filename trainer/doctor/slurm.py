"""Slurm checks: the job's time limit, its stop signal, and the permission to
submit.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from omegaconf import DictConfig

from common.text import duration
from trainer.doctor.disk import checkpoint_bytes
from trainer.doctor.findings import FATAL, NOT_HERE, OK, WARNING, Finding
from trainer.doctor.forecast import Outlook
from trainer.process.deadline import Deadline, job_end, save_seconds
from trainer.recipe import load as configs
from trainer.recipe import site
from trainer.run.folder import Run

SCRIPTS = configs.RECIPES.parent / "slurm"
SIGNAL = re.compile(r"^#SBATCH\s+--signal=\S*USR1@(\d+)", re.MULTILINE)


def check(config: DictConfig, outlook: Outlook, options: Sequence[str]) -> Iterator[Finding]:
    """Yields findings on the time limit, the signal and the permission to
    submit the script with sbatch's ``options``.
    """
    in_job = "SLURM_JOB_ID" in os.environ
    script = script_of(config.name)
    deadline, save = Deadline(None), _save_seconds(config, outlook)
    deadline.slowest = outlook.step_seconds or 0.0
    margin = deadline.margin(save)
    if in_job:
        yield _limit(outlook, margin)
    else:
        yield Finding(NOT_HERE, "time limit", "not a Slurm job")
    yield _signal(script, margin, measured=save == outlook.save_seconds)
    asked = (SCRIPTS / "eval.sh", ()) if in_job else (script, options)
    yield _submission(*asked, in_job, config)


def script_of(recipe: str) -> Path:
    """Returns the job script that trains a recipe: its own, or the one that accepts any recipe."""
    script = SCRIPTS / f"{recipe}.sh"
    return script if script.exists() else SCRIPTS / "sft_4b.sh"


def outside() -> dict[str, str]:
    """Returns this process's environment as it would be outside any job, for sbatch."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SLURM_") or name == "SLURM_CONF"
    }


def _save_seconds(config: DictConfig, outlook: Outlook) -> float:
    """Returns how long a save may take, in seconds, as the run itself computes it."""
    ranks = config.train.ranks
    if config.device == "cuda":
        ranks = config.cluster.nodes * config.cluster.gpus_per_node
    size = checkpoint_bytes(outlook.shape) if outlook.shape else 0
    return save_seconds(size, ranks, outlook.save_seconds or 0.0)


def _limit(outlook: Outlook, margin: float) -> Finding:
    end = job_end(os.environ)
    if end is None:
        return Finding(OK, "time limit", "Slurm reports none for this job")
    left = end - time.time()
    text = f"the job ends in {duration(left)}"
    if outlook.step_seconds is None or outlook.hours_left is None:
        return Finding(OK, "time limit", f"{text}; the run's length is known after its first steps")
    if left < margin + outlook.step_seconds:
        needs = f"{text}, and a step and its save need {duration(margin + outlook.step_seconds)}"
        return Finding(
            FATAL,
            "time limit",
            needs,
            f"sbatch --time={duration(10 * (margin + outlook.step_seconds))}",
        )
    needed = outlook.hours_left * 3600 + margin
    kind = "measured" if outlook.measured else "forecast"
    text += f"; the rest of the run needs {duration(needed)} ({kind})"
    if left < needed:
        jobs = math.ceil(outlook.hours_left * 3600 / (left - margin))
        return Finding(
            WARNING,
            "time limit",
            f"{text}, about {jobs} such jobs",
            f"sbatch --time={duration(1.1 * needed)}",
        )
    return Finding(OK, "time limit", text)


def _signal(script: Path, margin: float, measured: bool) -> Finding:
    given = SIGNAL.search(script.read_text(encoding="utf-8")) if script.exists() else None
    how = "measured" if measured else "assuming that each rank writes 100 MB/s"
    text = f"a stop needs {margin:,.0f} s ({how})"
    if given is None:
        return Finding(
            OK,
            "signal",
            f"{text}; {script.name} requests no signal, the run checks the time limit itself",
        )
    text += f", {script.name} gives {int(given[1]):,} s"
    if int(given[1]) < margin:
        return Finding(WARNING, "signal", text, f"sbatch --signal=USR1@{math.ceil(margin)}")
    return Finding(OK, "signal", text)


def _submission(script: Path, options: Sequence[str], in_job: bool, config: DictConfig) -> Finding:
    if shutil.which("sbatch") is None:
        return Finding(NOT_HERE, "submission", "no sbatch on this machine")
    clean = outside() | {"DOCTOR_VENV": sys.prefix}
    command = [
        "bash",
        str(script),
        "--test-only",
        *options,
    ]  # the script adds the options of the site file
    try:
        done = subprocess.run(
            command, cwd=SCRIPTS.parent, env=clean, capture_output=True, text=True, timeout=120
        )
    except subprocess.TimeoutExpired:
        refusal = "sbatch did not answer within two minutes"
    else:
        if done.returncode == 0:
            return Finding(OK, "submission", f"sbatch would accept {script.name}")
        refusal = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    text = f"{script.name}: {refusal}"
    if in_job:
        root = Run.of(config).root
        name = config.run.name if root.parent == site.runs() else root
        fix = f"on the login node: warmstart watch {name}"
        return Finding(
            WARNING, "submission", f"{text}; evaluations cannot be submitted from here", fix
        )
    if config.device == "cpu":
        fix = f"warmstart run {config.name} needs no job; for one, choose a recipe for GPUs"
        return Finding(WARNING, "submission", text, fix)
    fix = (
        "set SBATCH_ACCOUNT, SBATCH_PARTITION and SBATCH_QOS in slurm/site.env "
        "(cp slurm/site.example.env slurm/site.env)"
    )
    return Finding(FATAL, "submission", text, fix)
