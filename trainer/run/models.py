"""The exported models of a run, and the model that a word of the command line means."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import MANIFEST, read_json
from trainer.recipe import load as configs
from trainer.run import rl_models
from trainer.run.folder import Run, is_complete, parse_evaluation
from trainer.run.model_label import BASE, IN_FOLDERS, ModelLabel


def exported(run: Run) -> list[ModelLabel]:
    """Returns the models with a complete export: steps of SFT, averages, models of RL."""
    return [*map(ModelLabel, run.exports), *averages(run), *rl_models.exported(run)]


def averages(run: Run) -> list[ModelLabel]:
    """Returns the averages with a complete export, sorted by name."""
    found = (p.name for p in run.export(BASE).parent.glob("avg_*") if is_complete(p))
    return sorted(ModelLabel.parse(name) for name in found if re.fullmatch(IN_FOLDERS, name))


def average_of(run: Run, label: ModelLabel) -> dict[str, Any] | None:
    """Returns an average's members and the base model's share, from its export's manifest; None if
    the export does not exist.
    """
    path = run.export(label) / MANIFEST
    return read_json(path)["average"] if path.exists() else None


def bare(run: Run) -> str | None:
    """Returns the model's name if the run only evaluates one, as ``warmstart eval MODEL`` does;
    None for other runs.
    """
    if not run.config.exists():
        return None
    config = configs.read(run.config)
    if str(config.data.source) != configs.NO_SOURCE:
        return None
    return Path(config.model.path).name or run.name


def resolve(run: Run, label: ModelLabel) -> ModelLabel:
    """Returns the full label of a model: for ``rl-N`` that of the newest start that has step N.
    Another label is returned as it is.

    Raises UserError when the run has no such average or model of RL.
    """
    if label.kind != "average":
        return rl_models.resolve(run, label)
    there = averages(run)
    if label not in {*there, *(parse_evaluation(folder)[1] for folder in run.evaluations)}:
        words = ", ".join(found.word for found in there) or "none"
        raise UserError(
            f"{run.root} has no average {label.word} (available: {words}): warmstart export "
            f"{run.root} --average STEP,STEP makes one"
        )
    return label
