"""Writes the model card of an export: README.md in its folder, only from the run's files.

The export's manifest does not list the card and its pictures, because they change with every
evaluation while the model stays the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from common.errors import UserError
from common.files import MANIFEST, read_json, write_text
from eval.card.average_card import AverageCard
from eval.card.rl_card import RlCard
from eval.card.sft_card import SftCard
from eval.report import rl_training, training_curves
from trainer.export.hub_upload import CARD
from trainer.run import models, rl_metrics, rl_models, step_metrics
from trainer.run.folder import LOSS_PICTURE, Run
from trainer.run.model_label import ModelLabel
from trainer.run.rl_start import REWARD_PICTURE

CARDS = {"sft": SftCard, "average": AverageCard, "rl": RlCard}
"""Kind of a model -> its card."""


def refresh(run: Run) -> list[Path]:
    """Rewrites the card of every complete export; returns the cards' paths."""
    return [write(run, run.export(model)) for model in models.exported(run)]


def write(run: Run, folder: Path, repo: str | None = None, overrides: Sequence[str] = ()) -> Path:
    """Writes README.md, loss.png and, for an RL model, reward.png into ``folder``, a complete
    export of the run; returns the path of README.md.

    ``repo`` is the model's name on the hub, for the examples; ``overrides`` change mutable keys of
    the run's configuration, such as ``model.license``. Raises UserError when the run's
    metrics are missing.
    """
    step, label = read_json(folder / MANIFEST)["step"], ModelLabel.parse(folder.name)
    steps = [s for s in step_metrics.read(run) if s["step"] <= step]
    if not steps:
        raise UserError(
            f"{run.root} has no metrics of its steps up to {step}, which the model card needs: "
            "restore its attempts/*/metrics.jsonl"
        )
    training_curves.picture(folder / LOSS_PICTURE, steps)
    start = rl_models.start_of(run, label) if label.kind == "rl" else None
    if start is not None and (done := rl_metrics.read(start, label.rl)):
        rl_training.picture(folder / REWARD_PICTURE, done)
    write_text(folder / CARD, CARDS[label.kind](run, folder, steps, repo, overrides).text())
    return folder / CARD
