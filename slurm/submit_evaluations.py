"""Submits the evaluations of a run: of the base model, and of each checkpoint once it is complete.

Runs in the background of the training job, or on the login node as ``warmstart watch RUN``. The
run's submissions.jsonl records each submission by label and evaluation settings, so that several
watchers submit each evaluation only once.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from threading import Event

from common.files import sha256_json, write_lock
from slurm.environment import outside
from trainer.recipe import load as configs
from trainer.run import frozen_config
from trainer.run.folder import SUBMISSIONS, Run
from trainer.run.model_label import BASE, ModelLabel

POLL_SECONDS = 20.0
LONGEST_PAUSE_SECONDS = 1800.0
CHECKOUT = Path(__file__).resolve().parent.parent


def watch(
    run: Run,
    overrides: Sequence[str] = (),
    once: bool = False,
    poll: float = POLL_SECONDS,
    stop: Event | None = None,
) -> bool:
    """Submits evaluations until training has finished and none is missing; with ``once``, only
    those missing now.

    A failed submission is printed and retried, with growing pauses; ``poll`` is in seconds;
    ``stop`` ends the waiting. Returns whether the last round had no failures. Raises UserError for
    invalid overrides, and while another process watches.
    """
    stop, pause = stop or Event(), poll
    with write_lock(run.watch_lock):
        while True:
            finished = has_finished(run)
            failures = submit_missing(run, overrides)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS) if failures else poll
            if once or (finished and not failures) or stop.wait(pause):
                return not failures


def submit_missing(run: Run, overrides: Sequence[str]) -> int:
    """Submits the evaluations that have not been submitted yet. Returns the number of failed
    submissions.
    """
    if not run.attempts:  # the base model may not exist yet
        return 0
    config = configs.amend(frozen_config.read(run), overrides)
    settings = sha256_json(configs.own_values(config, run.config)["eval"])[:8]
    there = {(line["label"], line["settings"]) for line in run.notes(SUBMISSIONS)}
    failures = 0
    for label in (BASE, *map(ModelLabel, run.checkpoints)):
        if (label.word, settings) in there:
            continue
        job, fault = submit(run, label, overrides)
        if job is None:
            failures += 1
            print(
                f"warmstart: the evaluation of {label.word} could not be submitted: {fault}",
                flush=True,
            )
            continue
        run.note(SUBMISSIONS, {"label": label.word, "settings": settings, "job": job})
        print(f"warmstart: job {job} evaluates {label.word}", flush=True)
    return failures


def submit(run: Run, label: ModelLabel, overrides: Sequence[str]) -> tuple[str | None, str]:
    """Submits one evaluation as a user does on the login node. Returns (job id, or None when sbatch
    fails; sbatch's output).
    """
    command = ["slurm/eval.sh", "--parsable", str(run.root.resolve()), label.word, *overrides]
    try:
        done = subprocess.run(
            command,
            cwd=CHECKOUT,
            env=outside(os.environ),
            capture_output=True,
            text=True,
            timeout=300,
        )
    except subprocess.TimeoutExpired:
        return None, "sbatch has not answered for 5 minutes"
    found = re.search(r"^(\d+)(;\S+)?$", done.stdout, re.MULTILINE)
    output = (done.stderr or done.stdout).strip()
    return (found[1] if done.returncode == 0 and found else None), output


def has_finished(run: Run) -> bool:
    """Returns whether the last attempt trained to the end."""
    return bool(run.attempts) and run.attempts[-1].status == "finished"
