"""Compares the evaluations of averages with those of the steps that were averaged, paired by
problem.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eval.grading.metrics import TOTAL, accuracies
from eval.results import evaluation as evaluations
from eval.results.base_vs_sft import Comparison, cells, missing, shown
from eval.results.evaluation import Evaluation
from trainer.run import models
from trainer.run.folder import Run
from trainer.run.model_label import BASE, ModelLabel


@dataclass(frozen=True)
class AverageComparison:
    """Evaluations under the same settings."""

    base: Evaluation | None
    average: Evaluation
    members: Mapping[int, Evaluation | None]
    """Step -> its evaluation, None if it was not evaluated under these settings; empty if the
    export, which names the steps, does not exist.
    """

    @property
    def all(self) -> list[Evaluation]:
        """The evaluations that exist: base, members, average."""
        return [e for e in (self.base, *self.members.values(), self.average) if e]

    @property
    def protocol(self) -> tuple[str, ...]:
        """Key of the settings that the evaluations of one table share, for sorting."""
        return tuple(sorted(f"{k}={v}" for k, v in self.average.shared_settings.items()))


def of_run(run: Run, partial: bool = False) -> list[AverageComparison]:
    """Returns one comparison per evaluation of an average; those under the same settings follow
    each other, sorted by name.
    """
    found = []
    for group in evaluations.groups(run, partial):
        for label in sorted(label for label in group if label.kind == "average"):
            made = models.average_of(run, label) or {"members": []}
            steps = [member["step"] for member in made["members"]]
            members = {step: group.get(ModelLabel(step)) for step in steps}
            found.append(AverageComparison(group.get(BASE), group[label], members))
    return sorted(found, key=lambda c: c.protocol)


def of_model(run: Run, label: ModelLabel) -> list[AverageComparison]:
    """Returns a model's complete comparisons, newest first."""
    found = [c for c in of_run(run) if c.average.label == label]
    return sorted(found, key=lambda c: c.average.age, reverse=True)


def headline(comparisons: Sequence[AverageComparison]) -> list[list[str]]:
    """Returns titles, then per average and evaluated member one line per set with pass@1 of base,
    member and average and their difference, and the other accuracies over all problems. The
    comparisons have the same settings.
    """
    lines = [["pass@1", "base", "member", "average", "average - member"]]
    for c in comparisons:
        known = c.average.figures
        rows = [(name, "pass@1") for name in known if name != TOTAL or len(known) > 2]
        rows += [(TOTAL, metric) for metric in accuracies(c.average.n)[1:] if c.average.n > 1]
        evaluated: list[Evaluation | None] = [e for e in c.members.values() if e]
        for member in evaluated or [None]:
            pair = str(c.average.label) if member is None else f"{c.average.label}, {member.label}"
            there = [e for e in (c.base, member, c.average) if e]
            for name, metric in rows:
                what = f"{shown(name)} ({known[name]['problems']} problems)"
                what = what if metric == "pass@1" else f"{metric}, all"
                base, _, _ = cells(Comparison(c.base, c.average), name, metric)
                rest = cells(Comparison(member, c.average), name, metric)
                lines.append([f"{pair}, {what}{missing(name, *there)}", base, *rest])
    return lines
