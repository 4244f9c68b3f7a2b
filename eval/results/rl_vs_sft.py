"""Compares the evaluations of RL's models with those of the base model and of the SFT step that RL
started from, paired by problem.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eval.grading.metrics import TOTAL, accuracies
from eval.results import evaluation as evaluations
from eval.results.base_vs_sft import Comparison, cells, missing, shown
from eval.results.evaluation import Evaluation
from trainer.run import rl_models
from trainer.run.folder import Run
from trainer.run.model_label import BASE, ModelLabel


@dataclass(frozen=True)
class RlComparison:
    """Evaluations under the same settings; ``sft`` is None if its step was not evaluated under
    them, or is no longer known.
    """

    base: Evaluation | None
    sft: Evaluation | None
    rl: Evaluation
    step: int | None
    """The step of SFT that RL started from."""

    @property
    def all(self) -> list[Evaluation]:
        """The evaluations that exist: base, SFT, RL."""
        return [e for e in (self.base, self.sft, self.rl) if e]

    @property
    def protocol(self) -> tuple[str, ...]:
        """Key of the settings that the evaluations of one table share, for sorting."""
        return tuple(sorted(f"{k}={v}" for k, v in self.rl.shared_settings.items()))


def of_run(run: Run, partial: bool = False) -> list[RlComparison]:
    """Returns one comparison per evaluation of RL's models; those under the same settings follow
    each other, sorted by model.
    """
    found = []
    for group in evaluations.groups(run, partial):
        for label in sorted(label for label in group if label.kind == "rl"):
            step = rl_models.sft_step(run, label)
            sft = None if step is None else group.get(ModelLabel(step))
            found.append(RlComparison(group.get(BASE), sft, group[label], step))
    return sorted(found, key=lambda c: c.protocol)


def of_model(run: Run, label: ModelLabel) -> list[RlComparison]:
    """Returns a model's complete comparisons, newest first."""
    found = [c for c in of_run(run) if c.rl.label == label]
    return sorted(found, key=lambda c: c.rl.age, reverse=True)


def headline(comparisons: Sequence[RlComparison]) -> list[list[str]]:
    """Returns titles, then per model one line per set with pass@1 of base, SFT and RL and the
    difference between RL and SFT, and the other accuracies over all problems. The comparisons have
    the same settings.
    """
    lines = [["pass@1", "base", "SFT, RL's start", "RL", "RL - SFT"]]
    for c in comparisons:
        known = c.rl.figures
        rows = [(name, "pass@1") for name in known if name != TOTAL or len(known) > 2]
        rows += [(TOTAL, metric) for metric in accuracies(c.rl.n)[1:] if c.rl.n > 1]
        for name, metric in rows:
            what = f"{shown(name)} ({known[name]['problems']} problems)"
            what = what if metric == "pass@1" else f"{metric}, all"
            title = f"{c.rl.label}{_origin(c)}, {what}{missing(name, *c.all)}"
            base, _, _ = cells(Comparison(c.base, c.rl), name, metric)
            lines.append([title, base, *cells(Comparison(c.sft, c.rl), name, metric)])
    return lines


def _origin(c: RlComparison) -> str:
    return "" if c.step is None else f" from {ModelLabel(c.step)}"
