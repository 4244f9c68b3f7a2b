"""Decides whether to requeue a job after its work has ended, and submits a successor if Slurm
refuses to requeue it.

Requeued: a stop on purpose, and a few consecutive crashes, with growing pauses and without the
nodes that were broken. Not requeued: a wrong configuration, a disk that is full or not writable, a
job without progress since the last requeue (one crash is forgiven, in case the node was bad), and a
stop for an alarm (``train.stop_on_alarm``), because a requeued job would ignore the alarm. Each
decision is a line of the run's requeues.jsonl. A job and its successors form a chain, which counts
as one job for these limits.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.exit_codes import DONE, PREFLIGHT, STOPPED, USAGE
from common.records import ROLLOUTS
from slurm.queue import exclusion, jobs
from slurm.queue.exit_code import take_code
from trainer.doctor.incidents import own_start
from trainer.process.stop_signal import SIGNALS
from trainer.run.folder import REQUEUES, SUBMISSIONS, Run, parse_evaluation
from trainer.run.model_label import ModelLabel
from trainer.run.rl_start import RlStart
from trainer.run.step_metrics import held_for

TRAIN, RL = "train", "rl"
REQUESTS = tuple(128 + number for number in SIGNALS)
"""Exit codes of a process that a stop signal killed before it could handle it."""
CRASHES = 3
"""Maximum number of consecutive crashes after which a job is requeued."""
FAULTS = {"crashed": "crashed", "broken": "a node was broken"}
"""Kinds of ends that count as crashes, as text."""
PAUSE_SECONDS = 60
"""Pause in the queue after the first crash; it doubles with each consecutive crash."""


@dataclass(frozen=True)
class Ended:
    """How a job's work ended this time."""

    kind: str
    """``done``, ``stopped``, ``held`` (stopped for an alarm), ``crashed``, ``refused`` (wrong
    configuration or environment) or ``broken`` (a node was broken before the work began).
    """
    progress: int
    """Training and RL: step of the newest checkpoint. Evaluation: number of rollouts."""


@dataclass(frozen=True)
class Decision:
    """Whether to requeue the job, and why."""

    again: bool
    reason: str
    pause: int = 0
    """Minimum seconds until the job may start again."""


def decide(ended: Ended, before: Sequence[dict[str, Any]]) -> Decision:
    """Returns the decision. ``before`` has the earlier requeues of the same chain, oldest
    first.
    """
    if ended.kind == "done":
        return Decision(False, "done")
    if ended.kind == "refused":
        return Decision(
            False, "the configuration or the environment is wrong: a rerun would fail too"
        )
    if ended.kind == "held":
        return Decision(
            False, "stopped for an alarm: look at it, then submit the same command to continue"
        )
    stuck = before and ended.progress <= before[-1]["progress"]
    if stuck and (ended.kind == "stopped" or ended.kind == before[-1]["ended"] == "crashed"):
        return Decision(
            False, f"{ended.kind} at {ended.progress}: no progress since the last requeue"
        )
    if ended.kind == "stopped":
        return Decision(True, "stopped on purpose")
    crashes = 1
    for decision in reversed(before):
        if decision["ended"] not in FAULTS:
            break
        crashes += 1
    what = FAULTS[ended.kind]
    if crashes > CRASHES:
        return Decision(False, f"{what} {crashes} times in a row")
    return Decision(
        True,
        f"{what}, {crashes} of at most {CRASHES} times in a row",
        PAUSE_SECONDS * 2 ** (crashes - 1),
    )


def kind_of(code: int) -> str:
    """Returns ``Ended.kind`` for an exit code of the ``warmstart`` command."""
    if code in (STOPPED, *REQUESTS):
        return "stopped"
    return {DONE: "done", USAGE: "refused", PREFLIGHT: "refused"}.get(code, "crashed")


def of_training(run: Run, code: int, since: int) -> str:
    """Returns ``Ended.kind`` of a training run that died before writing an exit code: from its
    attempt's outcome if there is one, else from srun's ``code``.

    ``since`` is the number of the last attempt at the last decision.
    """
    status = run.attempts[-1].status if run.last_attempt > since else None
    if status is None or code == PREFLIGHT:  # then the attempt is an earlier job's
        return kind_of(code)
    return {"finished": "done", "stopped": "stopped", "failed": "crashed"}[status]


def held(run: Run, since: int) -> bool:
    """Returns whether the newest attempt is later than attempt ``since`` and stopped for an
    alarm.
    """
    return run.last_attempt > since and held_for(run.attempts[-1]) is not None


def rollouts(run: Run, label: ModelLabel) -> int:
    """Returns the number of the model's rollouts so far."""
    files = [f / ROLLOUTS for f in run.evaluations if parse_evaluation(f)[1] == label]
    return sum(path.read_bytes().count(b"\n") for path in files if path.exists())


def chain(notes: Sequence[dict[str, Any]], job: str) -> list[dict[str, Any]]:
    """Returns the decisions about the job and its predecessors, oldest first: the last decision
    about each start of a job.
    """
    members, found = {job}, dict[tuple[str, Any], dict[str, Any]]()
    for line in reversed(notes):
        if line.get("successor") in members:
            members.add(line["job"])
        if line["job"] in members:
            found.setdefault((line["job"], line.get("count")), line)
    return list(found.values())[::-1]


def forget(run: Run) -> None:
    """Deletes an exit code that the same job left before someone requeued it by hand; called before
    the work begins.
    """
    take_code(run.root, os.environ["SLURM_JOB_ID"])


def conclude(
    run: Run,
    code: int,
    words: Sequence[str],
    label: ModelLabel | None = None,
    rl: RlStart | None = None,
) -> int:
    """Decides, records the decision and requeues; returns the job's exit code.

    ``code`` is srun's exit code of training, of the evaluation of ``label`` or of ``rl``; the exit
    code that the first task wrote takes precedence. ``words`` are the script's arguments.
    """
    what, faulty = TRAIN if label is None else label.word, dict[str, str]()
    job, start = os.environ["SLURM_JOB_ID"], own_start()
    before = chain(run.notes(REQUEUES), job)
    own = take_code(run.root, job)
    code = code if own is None else own
    if rl is not None:
        what, ended = f"{RL}/{rl.root.name}", Ended(kind_of(code), rl.latest)
    elif label is None:
        since = before[-1]["attempt"] if before else 0
        kind = of_training(run, code, since) if own is None else kind_of(own)
        if kind == "stopped" and held(run, since):
            kind = "held"
        faulty = exclusion.broken(run, job, start)
        if code == PREFLIGHT and faulty:
            kind = "broken"
        ended = Ended(kind, run.checkpoints[-1] if run.checkpoints else 0)
    else:
        ended = Ended(kind_of(code), rollouts(run, label))
    decision = decide(ended, [line for line in before if line["requeued"]])
    if decision.again and (now := jobs.state(jobs.own_id())) != "RUNNING":
        decision = Decision(
            False, f"{decision.reason}; Slurm itself ends or requeues the job ({now.lower()})"
        )
    line = {
        "job": job,
        "what": what,
        "count": start,
        "attempt": run.last_attempt,
        "code": code,
        "ended": ended.kind,
        "progress": ended.progress,
        "requeued": decision.again,
        "pause_s": decision.pause,
        "reason": decision.reason,
    }
    run.note(REQUEUES, line)
    print(f"warmstart: {what}: {decision.reason}", flush=True)
    for node, fault in faulty.items():
        print(f"warmstart: node {node} is broken: {fault}", flush=True)
    if decision.again:
        print(
            f"warmstart: job {job} is requeued, to start in {decision.pause} s at the earliest",
            flush=True,
        )
        starts = [*((line["job"], line["count"]) for line in before), (job, start)]
        left_out = exclusion.names(run, jobs.own_id(), starts)
        if refusal := jobs.requeue(jobs.own_id(), decision.pause):
            _succeed(run, line, refusal, words, left_out)
        else:
            exclusion.exclude(jobs.own_id(), left_out)
    return DONE if ended.kind == "done" else code


def _succeed(
    run: Run, line: dict[str, Any], refusal: str, words: Sequence[str], left_out: Collection[str]
) -> None:
    """Submits a job that begins once this one has ended, without the nodes ``left_out``; records
    the result.

    If this job is recorded as a submitted evaluation, so is its successor.
    """
    job = line["job"]
    options, script = jobs.succession(job, words)
    options = [option for option in options if not option.startswith("--exclude=")]
    if left_out:
        options.append(f"--exclude={','.join(sorted(left_out))}")
    wait = [f"--dependency=afterany:{jobs.own_id()}"]
    if line["pause_s"]:
        wait.append(f"--begin=now+{line['pause_s']}")
    successor, said = jobs.submit(["sbatch", "--parsable", *wait, *options, *script], Path.cwd())
    reason = f"Slurm refuses to requeue: {refusal}"
    if successor is None:
        run.note(REQUEUES, line | {"requeued": False, "reason": f"{reason}; sbatch: {said}"})
        print(
            f"warmstart: not requeued: {refusal}; sbatch refuses a successor too: "
            f"{said}\nwarmstart: to continue, run {shlex.join(['sbatch', *options, *script])} in "
            f"{Path.cwd()}",
            flush=True,
        )
        return
    run.note(REQUEUES, line | {"successor": successor, "reason": f"{line['reason']}; {reason}"})
    for note in run.evaluation_jobs:
        if note["job"] == job:
            run.note(SUBMISSIONS, {**note, "job": successor, "ended": None})
    print(f"warmstart: {reason}: job {successor} continues when this one has ended", flush=True)
