"""The commands that a user may want to run after an evaluation."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from eval.results import evaluation as evaluations
from eval.results.evaluation import Evaluation
from trainer.run.folder import Run
from trainer.run.model_label import BASE


def after(run: Run, evaluation: Evaluation) -> list[tuple[str, str]]:
    """Returns (command, what it does) for a run after this evaluation."""
    name, label = _name(run), evaluation.label
    prepare = ["rl", name, label.word], "prepare RL from it"
    if evaluations.is_of_pool(evaluation.folder):
        return _lines([prepare])
    alike = max(
        (group for group in evaluations.groups(run, partial=False) if label in group),
        key=lambda group: group[label].age,
        default={},
    )
    words = [(["report", name], "report and page")]
    if label != BASE and BASE in alike:
        pair = [f"{name}@base", f"{name}@{label.word}"]
        words.append((["compare", *pair], "is it better than the base model?"))
    if sum(other.kind in ("sft", "average") for other in alike) > 1:
        words.append((["choose", name], "which checkpoint RL should start from"))
    if label.kind == "sft":
        words.append(prepare)
    return _lines(words)


def _lines(words: Sequence[tuple[list[str], str]]) -> list[tuple[str, str]]:
    return [(shlex.join(["warmstart", *line]), what) for line, what in words]


def _name(run: Run) -> str:
    """Returns the run's name if commands find the run by it, otherwise its folder."""
    found = Run.find(run.name)
    same = found is not None and found.root.absolute() == run.root.absolute()
    return run.name if same else str(run.root)
