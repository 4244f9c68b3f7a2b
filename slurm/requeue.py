"""After a job's work has ended: whether Slurm is to run the same job again.

A stop on purpose is requeued, a crash too, a few times and later each time; a wrong configuration never is, nor
is a job that got nowhere since it was requeued, but for a first crash, which may be the node's. Each decision is a
line of the run's requeues.jsonl.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from common.exit_codes import DONE, PREFLIGHT, STOPPED, USAGE
from common.files import read_json
from slurm.child_process import take_code
from trainer.process.stop_signal import SIGNALS
from trainer.run.folder import REQUEUES, Run

TRAIN = "train"
REQUESTS = tuple(128 + number for number in SIGNALS)
"""Codes of a process that a request to stop ended before it could answer."""
CRASHES = 3
"""Crashes in a row after which a job is requeued once more; the next one ends it."""
PAUSE_SECONDS = 60
"""What the job waits in the queue after the first crash; twice as long after each further one."""


@dataclass(frozen=True)
class Ended:
    """How the work of one job ended this time."""

    kind: str
    """done, stopped, crashed or refused."""
    progress: int
    """Newest checkpoint's step of training, number of rollouts of an evaluation."""


@dataclass(frozen=True)
class Decision:
    again: bool
    reason: str
    pause: int = 0
    """Seconds until the job may start again."""


def decide(ended: Ended, before: Sequence[dict[str, Any]]) -> Decision:
    """``before`` has the decisions of the same job, oldest first."""
    if ended.kind == "done":
        return Decision(False, "done")
    if ended.kind == "refused":
        return Decision(False, "the configuration or the environment is wrong, and would be again")
    stuck = before and ended.progress <= before[-1]["progress"]
    if stuck and (ended.kind == "stopped" or before[-1]["ended"] == "crashed"):
        return Decision(False, f"{ended.kind} at {ended.progress}, where it was requeued before: no progress")
    if ended.kind == "stopped":
        return Decision(True, "stopped on purpose")
    crashes = 1
    for decision in reversed(before):
        if decision["ended"] != "crashed":
            break
        crashes += 1
    if crashes > CRASHES:
        return Decision(False, f"crashed {crashes} times in a row")
    return Decision(True, f"crashed, {crashes} of at most {CRASHES} times in a row", PAUSE_SECONDS * 2 ** (crashes - 1))


def kind_of(code: int) -> str:
    """What an exit code of the command says."""
    if code in (STOPPED, *REQUESTS):
        return "stopped"
    return {DONE: "done", USAGE: "refused", PREFLIGHT: "refused"}.get(code, "crashed")


def of_training(run: Run, code: int, since: int) -> str:
    """How training ended that did not live to say it: by its attempt's outcome, else by srun's ``code``.

    ``since`` is the attempt that the last decision was about.
    """
    outcome = run.attempts[-1] / "outcome.json" if len(run.attempts) > since else None
    if outcome is not None and outcome.exists():
        return {"finished": "done", "stopped": "stopped", "failed": "crashed"}[read_json(outcome)["status"]]
    return kind_of(code)


def rollouts(run: Run, label: str) -> int:
    """Rollouts there are of the base model (``base``) or a step (its number)."""
    name = label if label == "base" else f"step_{label}"
    files = [folder / "rollouts.jsonl" for folder in run.evaluations if f"@{name}-" in folder.name]
    return sum(path.read_bytes().count(b"\n") for path in files if path.exists())


def state(job: str) -> str:
    """Slurm's state of a job, RUNNING and the like."""
    shown = subprocess.run(["scontrol", "show", "job", "-o", job], capture_output=True, text=True).stdout
    found = re.search(r"\bJobState=(\S+)", shown)
    return found[1] if found else "UNKNOWN"


def requeue(job: str, pause: int) -> str | None:
    """Puts the running job back into the queue; returns Slurm's refusal, None when it is done.

    Slurm then ends everything of the job, this process too, after some seconds of patience.
    """
    done = subprocess.run(["scontrol", "requeue", job], stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return done.stdout.strip()
    if pause:
        subprocess.run(["scontrol", "update", f"JobId={job}", f"StartTime=now+{pause}"], check=False)
    return None


def forget(run: Run) -> None:
    """Before the work begins: what the same job said is of no use where it was requeued from outside since."""
    take_code(run.root, os.environ["SLURM_JOB_ID"])


def conclude(run: Run, code: int, label: str = TRAIN) -> int:
    """Decides, records, requeues; returns the code that the job is to end with.

    ``code`` is the exit code of training, or of the evaluation of ``label``, as srun tells it; the first task's own
    comes before that.
    """
    job = os.environ["SLURM_JOB_ID"]
    before = [line for line in run.notes(REQUEUES) if line["job"] == job]
    own = take_code(run.root, job)
    code = code if own is None else own
    if label == TRAIN:
        kind = of_training(run, code, before[-1]["attempt"] if before else 0) if own is None else kind_of(own)
        ended = Ended(kind, run.checkpoints[-1] if run.checkpoints else 0)
    else:
        ended = Ended(kind_of(code), rollouts(run, label))
    decision = decide(ended, [line for line in before if line["requeued"]])
    if decision.again and (now := state(job)) != "RUNNING":
        decision = Decision(False, f"{decision.reason}; Slurm itself ends or requeues the job ({now.lower()})")
    line = {
        "job": job, "what": label,
        "count": int(os.environ.get("SLURM_RESTART_COUNT", 0)) + 1, "attempt": len(run.attempts), "code": code,
        "ended": ended.kind, "progress": ended.progress,
        "requeued": decision.again, "pause_s": decision.pause, "reason": decision.reason,
    }  # fmt: skip
    run.note(REQUEUES, line)
    print(f"warmstart: {label}: {decision.reason}", flush=True)
    if decision.again:
        print(f"warmstart: job {job} goes back into the queue, for {decision.pause} s at least", flush=True)
        if refusal := requeue(job, decision.pause):
            run.note(REQUEUES, line | {"requeued": False, "reason": f"Slurm refuses to requeue: {refusal}"})
            print(f"warmstart: not requeued: {refusal}", flush=True)
    return DONE if ended.kind == "done" else code
