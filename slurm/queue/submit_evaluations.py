"""Submits the evaluations of a run: of the base model, and of each checkpoint once it is complete.

Runs in the background of the training job, or on the login node as ``warmstart watch RUN``. The
run's submissions.jsonl records each submission by label and evaluation settings, so that several
watchers submit each evaluation only once. It also records the end of a job for which training keeps
a checkpoint: training cannot query Slurm itself, because its container may lack Slurm's commands.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from threading import Event

from common.files import sha256_json, write_lock
from slurm.queue import jobs
from trainer.checkpoint.retention import Retention, surplus
from trainer.recipe import load as configs
from trainer.run import frozen_config
from trainer.run.folder import SUBMISSIONS, Run
from trainer.run.model_label import BASE, ModelLabel

POLL_SECONDS = 20.0
LONGEST_PAUSE_SECONDS = 1800.0
ASK_EVERY_SECONDS = 300.0
"""Minimum seconds between two queries to Slurm about jobs."""
CHECKOUT = Path(__file__).resolve().parents[2]


def watch(
    run: Run,
    overrides: Sequence[str] = (),
    once: bool = False,
    poll: float = POLL_SECONDS,
    stop: Event | None = None,
) -> bool:
    """Submits evaluations until training has finished and none is missing; with ``once``, only
    those missing now. Also records which of their jobs have ended.

    A failed submission is printed and retried, with growing pauses; ``poll`` is in seconds;
    ``stop`` ends the waiting. Returns whether the last round had no failures. Raises UserError for
    invalid overrides, and while another process watches.
    """
    stop, pause, asked = stop or Event(), poll, float("-inf")
    with write_lock(run.watch_lock):
        while True:
            finished = has_finished(run)
            failures = submit_missing(run, overrides)
            if time.monotonic() > asked + ASK_EVERY_SECONDS and note_ended(run):
                asked = time.monotonic()
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
    there = {(line["label"], line.get("settings")) for line in run.notes(SUBMISSIONS)}
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
    """Submits one evaluation. Returns (job id, or None when sbatch fails; sbatch's output)."""
    words = (str(run.root.resolve()), label.word, *overrides)
    return jobs.submit(["slurm/eval.sh", "--parsable", *words], CHECKOUT)


def note_ended(run: Run) -> bool:
    """Records the evaluations whose job has ended without an export, and those that someone has
    requeued; checks only those for which a checkpoint is kept that would otherwise be deleted.

    Returns whether Slurm was queried. If it does not answer, the jobs count as alive.
    """
    if not run.attempts:
        return False
    config = frozen_config.read(run, run.attempts[-1].config)
    steps = surplus(run, Retention.of(config.train)) - set(run.exports)
    notes = [n for n in run.evaluation_jobs if ModelLabel.parse(n["label"]).step in steps]
    if not notes:
        return False
    ended = jobs.ended([note["job"] for note in notes])
    if ended is None:
        return True
    for note in notes:
        state = ended.get(note["job"])
        if bool(state) != bool(note.get("ended")):
            run.note(SUBMISSIONS, {**note, "ended": state})
            what = f"has ended ({state})" if state else "is in the queue again"
            print(
                f"warmstart: job {note['job']}, which evaluates {note['label']}, {what}", flush=True
            )
    return True


def has_finished(run: Run) -> bool:
    """Returns whether the last attempt trained to the end."""
    return bool(run.attempts) and run.attempts[-1].status == "finished"
