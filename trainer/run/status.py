"""Status of a run, from its files only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common.files import MANIFEST, read_json
from common.lease import age, is_locked
from common.text import duration
from trainer.run import models, rl_metrics, rl_models, step_metrics
from trainer.run.device_hours import Cost, costs, shown
from trainer.run.folder import (
    REQUEUES,
    Attempt,
    Run,
    is_complete,
    lock_of,
    parse_evaluation,
)
from trainer.run.model_label import BASE, ModelLabel
from trainer.run.rl_start import RlStart

LAST = ("total", "loss", "entropy", "token_accuracy", "eta_s")
"""Metrics of the last step that ``status`` returns; older runs lack some."""
ALARMS = 5
"""Number of the newest alarms that the table shows."""


def status(run: Run) -> dict[str, Any]:
    """Returns attempts, progress, checkpoints, exports, RL, evaluations and device-hours, as plain
    values.

    Times are in seconds; ``checkpoint_age_s`` counts from the completion of the newest checkpoint,
    by the file system's clock; None if no file can be written next to it.
    """
    steps = step_metrics.read(run)
    last = steps[-1] if steps else {}
    done = [folder for folder in run.evaluations if is_complete(folder)]
    logs = [str(attempt.log) for attempt in run.attempts if attempt.log.exists()]
    newest = run.checkpoint(run.checkpoints[-1]) / MANIFEST if run.checkpoints else None
    return {
        "run": str(run.root),
        "running": is_locked(run.lock),
        "attempts": [_attempt(run, attempt) for attempt in run.attempts],
        "step": last.get("step", 0),
        **{key: last.get(key) for key in LAST},
        "mean_tokens_per_s": step_metrics.mean_rate(steps) if steps else None,
        "last_tokens_per_s": last.get("tokens_per_s"),
        "alarms": [line for step in steps for line in step_metrics.alarm_lines(step)],
        "checkpoints": run.checkpoints,
        "checkpoint_age_s": None if newest is None else age(newest),
        "exports": run.exports,
        "rl": [_rl(start) for start in RlStart.find(run.rl)],
        "averages": [label.word for label in models.averages(run)],
        "rl_exports": [label.word for label in rl_models.exported(run)],
        "evaluations": {folder.name: _evaluation(folder) for folder in run.evaluations}
        | _pending(run),
        "device_hours": [asdict(cost) for cost in costs(run, done)],
        "log": logs[-1] if logs else None,
    }


def is_trained(run: Run) -> bool:
    """Returns True when the last attempt finished and the checkpoint of its last step exists."""
    if not run.attempts or run.attempts[-1].status != "finished":
        return False
    return read_json(run.attempts[-1].outcome)["total"] in run.checkpoints


def fields(values: dict[str, Any], scores: Mapping[str, str]) -> list[tuple[str, str]]:
    """Returns the values of ``status`` as names and texts; ``scores`` has the accuracy of
    evaluations, by their folder's name.
    """
    step, total, eta = (values[key] for key in ("step", "total", "eta_s"))
    progress = f"step {step:,}" + (
        f" of {total:,}, loss {values['loss'] or float('nan'):.4f}" if total else ""
    )
    if values["mean_tokens_per_s"] is not None:
        progress += f", {step_metrics.rate_line(values['mean_tokens_per_s'])}"
        if values["running"]:
            progress += f" ({values['last_tokens_per_s']:,.0f} in the last step)"
    if eta is not None and step != total:
        progress += (
            f", ETA {duration(eta)}" if values["running"] else f", {duration(eta)} left to train"
        )
    saved = ", ".join(map(str, values["checkpoints"])) or "none"
    if values["checkpoint_age_s"] is not None:
        saved += f" (the newest is {duration(values['checkpoint_age_s'])} old)"
    log = values["log"]
    exports = [*values["exports"], *values["averages"], *values["rl_exports"]]
    used = [Cost(**cost) for cost in values["device_hours"]]
    return [
        ("run", f"{values['run']}, {'running' if values['running'] else 'not running'}"),
        ("training", progress),
        *(("alarm", line) for line in values["alarms"][-ALARMS:]),
        *((f"attempt {a['attempt']}", _told(a)) for a in values["attempts"]),
        ("checkpoints", saved),
        ("exports", ", ".join(map(str, exports)) or "none"),
        *(("RL", _told_rl(start)) for start in values["rl"]),
        *(
            ("evaluation", f"{name}: {scores.get(name, state)}")
            for name, state in values["evaluations"].items()
        ),
        *((f"cost of {stage}", text) for stage, text in _cost(used)),
        ("log", f"tail -f {log}" if values["running"] else log or "none yet"),
    ]


def _cost(used: Sequence[Cost]) -> Iterator[tuple[str, str]]:
    """Yields stage and device-hours: of training, and of all evaluations together."""
    for cost in used:
        if cost.stage == "training":
            yield cost.stage, f"{shown(cost)}; {cost.note}"
    evaluations = [cost for cost in used if cost.stage.startswith("evaluation")]
    for unit in dict.fromkeys(cost.unit for cost in evaluations):
        alike = [cost for cost in evaluations if cost.unit == unit]
        total = Cost("", sum(cost.hours for cost in alike), unit, "")
        yield "evaluations", f"{shown(total)} in {len(alike)}; the report has each"


def _attempt(run: Run, attempt: Attempt) -> dict[str, Any]:
    steps = step_metrics.of_attempt(attempt)
    made = read_json(attempt.provenance) if attempt.provenance.exists() else {}
    ended = read_json(attempt.outcome) if attempt.outcome.exists() else {}
    running = attempt == run.attempts[-1] and is_locked(run.lock)
    requeues = [
        note
        for note in run.notes(REQUEUES)
        if note["what"] == "train" and note["attempt"] == attempt.number
    ]
    return {
        "attempt": attempt.number,
        "outcome": ended.get("status", "running" if running else "cut off"),
        "reason": ended.get("reason")
        or ended.get("alarm")
        or (requeues[-1]["reason"] if requeues else None),
        "first_step": made.get("first_step"),
        "last_step": max(steps, default=None),
    }


def _told(attempt: dict[str, Any]) -> str:
    text = attempt["outcome"]
    if attempt["last_step"] is not None:
        text += f", steps {attempt['first_step'] + 1:,} to {attempt['last_step']:,}"
    return f"{text}: {attempt['reason']}" if attempt["reason"] else text


def _rl(start: RlStart) -> dict[str, Any]:
    steps = rl_metrics.read(start)
    rewards = [step.reward for step in steps if step.reward is not None]
    return {
        "start": start.root.name,
        "running": is_locked(lock_of(start.root)),
        "step": steps[-1].step if steps else 0,
        "total": start.used.trainer.total_training_steps,
        "reward": rewards[-1] if rewards else None,
        "checkpoints": start.steps,
    }


def _told_rl(rl: dict[str, Any]) -> str:
    text = f"{rl['start']}, {'running' if rl['running'] else 'not running'}: "
    text += f"step {rl['step']:,} of {rl['total']:,}"
    if rl["reward"] is not None:
        text += f", reward {rl['reward']:.3f}"
    return f"{text}, checkpoints {', '.join(map(str, rl['checkpoints'])) or 'none'}"


def _evaluation(folder: Path) -> str:
    if is_complete(folder):
        return "done"
    return "running" if is_locked(lock_of(folder)) else "interrupted"


def _pending(run: Run) -> dict[str, str]:
    """Returns the evaluations not started: of the base model, the newest checkpoint, and those of
    submitted jobs, which may have ended without a start.
    """
    begun = {parse_evaluation(folder)[1] for folder in run.evaluations}
    wanted = dict.fromkeys([BASE, *map(ModelLabel, run.checkpoints[-1:])], "pending")
    for note in run.evaluation_jobs:
        state = str(note.get("ended") or "pending").lower()
        wanted[ModelLabel.parse(note["label"])] = f"{state}, job {note['job']}"
    return {str(label): state for label, state in wanted.items() if label not in begun}
