"""Replicates: runs of one recipe that differ only in the training seed."""

from __future__ import annotations

from typing import Any

from common.differences import differences
from common.errors import UserError
from common.files import read_object
from trainer.recipe import replicates
from trainer.run import frozen_config, models
from trainer.run.folder import Run
from trainer.run.model_label import ModelLabel


def seed_of(run: Run) -> int:
    """Returns the run's training seed. Raises UserError when its configuration has none."""
    seed = frozen_config.read(run).train.seed
    if not isinstance(seed, int):
        raise UserError(f"{run.config} is damaged: train.seed is {seed!r}, not an integer")
    return seed


def differing(one: Run, other: Run) -> list[str]:
    """Returns the differences that keep two runs from being replicates, as ``setting: value ->
    value``: of settings that can change the model, of the dataset, or of the base model. Empty if
    the runs differ only in the seed, or not at all. Raises UserError when a configuration cannot be
    read.
    """
    ours, theirs = _identity(one), _identity(other)
    known = bool(ours and theirs)
    found = replicates.differing(frozen_config.read(one), frozen_config.read(other), known)
    return [*found, *(differences(ours, theirs).values() if known else ())]


def same_model(one: Run, other: Run, label: ModelLabel) -> bool:
    """Returns whether a label means the same in both runs. For an average, its steps and shares
    must be the same; other labels always mean the same.
    """
    return label.kind != "average" or _shares(one, label) == _shares(other, label)


def _identity(run: Run) -> dict[str, str]:
    """Returns the hashes of what the run's last attempt was trained on; empty if there are none."""
    attempts = run.attempts
    if not attempts or not attempts[-1].provenance.exists():
        return {}
    return read_object(attempts[-1].provenance).get("identity", {})


def _shares(run: Run, label: ModelLabel) -> Any:
    made = models.average_of(run, label)
    if made is None:
        return None
    members = [(member["step"], member["weight"]) for member in made["members"]]
    return members, made["base"]
