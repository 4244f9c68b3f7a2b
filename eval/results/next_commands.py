"""The commands that a person may want after an evaluation."""

from __future__ import annotations

import shlex

from eval.results import evaluation as evaluations
from trainer.run.folder import Run
from trainer.run.model_label import BASE, ModelLabel


def after(run: Run, label: ModelLabel) -> list[tuple[str, str]]:
    """Returns (command, what it does) for a run of which ``label`` has just been evaluated."""
    alike = max(
        (group for group in evaluations.groups(run, partial=False) if label in group),
        key=lambda group: group[label].age,
        default={},
    )
    name = _name(run)
    words = [(["report", name], "report and page")]
    if label != BASE and BASE in alike:
        pair = [f"{name}@base", f"{name}@{label.word}"]
        words.append((["compare", *pair], "is it better than the base model?"))
    if sum(other.kind in ("sft", "average") for other in alike) > 1:
        words.append((["choose", name], "which checkpoint RL should start from"))
    if label.kind == "sft":
        words.append((["rl", name, label.word], "prepare RL from it"))
    return [(shlex.join(["warmstart", *line]), what) for line, what in words]


def _name(run: Run) -> str:
    """Returns the run's name where a command finds the run by it, else its folder."""
    found = Run.find(run.name)
    same = found is not None and found.root.absolute() == run.root.absolute()
    return run.name if same else str(run.root)
