"""The cost of the commands that ``warmstart rl`` prints, as far as it is known in advance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eval.results import evaluation as evaluations
from trainer.run import device_hours
from trainer.run.device_hours import CPU, CUDA, Cost
from trainer.run.folder import Run, is_complete
from trainer.run.model_label import ModelLabel
from trainer.run.rl_start import RlStart, gpus_of


def of_evaluation(run: Run, step: int, rollouts: int) -> str:
    """Returns the size of the pool's evaluation and, if the step has a timed evaluation, the
    device-hours at the newest one's pace.
    """
    return f"{rollouts:,} rollouts{_at_pace(run, step, rollouts)}"


def of_training(run: Run, step: int, start: RlStart, made: Mapping[str, Any]) -> str:
    """Returns the size of RL from a start, whose manifest is ``made``, with the GPU-hours of the
    planner's forecast or, without a forecast, the device-hours of its rollouts at the pace of the
    step's newest timed evaluation.
    """
    values = start.values([])
    steps, batch = values.trainer.total_training_steps, values.data.train_batch_size
    group = values.actor_rollout_ref.rollout.n
    size = f"{steps:,} steps of {batch:,} x {group} rollouts on {gpus_of(values)} ranks"
    if seconds := made.get("step_seconds"):
        hours = Cost("", steps * seconds * gpus_of(values) / 3600, CUDA, "")
        return f"{size}, {device_hours.shown(hours)} in the forecast"
    pace = _at_pace(run, step, steps * batch * group)
    return f"{size}{pace}" + (" for the rollouts alone" if pace else "")


def _at_pace(run: Run, step: int, rollouts: int) -> str:
    found = [evaluations.read(folder) for folder in run.evaluations if is_complete(folder)]
    timed = [e for e in found if e.label == ModelLabel(step) and e.device_seconds]
    if not timed:
        return ""
    newest = max(timed, key=lambda e: (evaluations.is_of_pool(e.folder), e.age))
    assert newest.device_seconds is not None
    device, seconds = newest.device_seconds
    unit = CUDA if device == "cuda" else CPU
    hours = device_hours.shown(Cost("", rollouts * seconds / 3600, unit, ""))
    return f", about {hours} at the pace of {newest.folder.name}"
