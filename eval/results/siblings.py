"""A run's replicates in the same folder of runs, and their figures, which show the effect of the
seed.

Any folder may be next to the run's: it is only read, and one that cannot be read is not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.text import percent
from eval.grading import replicates
from eval.grading.intervals import LEVEL
from eval.grading.metrics import TOTAL
from eval.results import evaluation as evaluations
from eval.results import seeds
from eval.results.compare_groups import estimated, spread
from eval.results.evaluation import Evaluation
from eval.results.group_targets import run_of, runs_of
from trainer.run.folder import Run, is_complete, parse_evaluation


@dataclass(frozen=True)
class Seeds:
    """The evaluations of one model of a run and of its replicates, in two or more runs."""

    evaluations: Sequence[Evaluation]
    """The run's own evaluation comes first."""
    train_seeds: Sequence[int]
    unreadable: Sequence[str]
    """Names of folders next to the run that seem to have such an evaluation but cannot be read."""

    def sentence(self) -> str:
        """Returns the mean, its interval, the spread between runs and each run's figure."""
        values = [e.values["pass@1"] for e in self.evaluations]
        runs = runs_of(values, values[0].keys(), TOTAL)
        each = ", ".join(
            f"{run_of(e).name} (seed {seed}) {percent(replicates.middle([of]))}"
            for e, seed, of in zip(self.evaluations, self.train_seeds, runs, strict=True)
        )
        told = (
            f"Over {len(runs)} training seeds, pass@1 of {self.evaluations[0].label} on all "
            f"{len(values[0]):,} problems is {estimated(runs)}, a {percent(LEVEL, 0)} interval "
            "over seeds and problems. Spread between runs (standard deviation, in points): "
            f"{spread(runs)}. The runs: {each}."
        )
        if self.unreadable:
            told += f" Not counted, as they could not be read: {', '.join(self.unreadable)}."
        return told


def find(run: Run, evaluation: Evaluation | None) -> Seeds | None:
    """Returns the runs next to ``run`` that differ from it only in the training seed and have a
    complete evaluation of the same model under the same settings, graded by the same rules; of
    several with the same seed, the first by name. None if there is none, for the base model, and
    for RL models, whose settings are not compared.
    """
    if evaluation is None or evaluation.is_partial or evaluation.label.kind in ("base", "rl"):
        return None
    if not run.config.exists():
        return None
    found, unreadable = {seeds.seed_of(run): evaluation}, []
    for folder in _beside(run):
        other = Run(folder)
        try:
            if (theirs := _alike(run, other, evaluation)) is not None:
                found.setdefault(seeds.seed_of(other), theirs)
        except (UserError, OSError):
            unreadable.append(folder.name)
    if len(found) < 2:
        return None
    return Seeds(list(found.values()), list(found), unreadable)


def _beside(run: Run) -> list[Path]:
    """Returns the other folders that have a configuration; empty if the folder of runs may not be
    listed.
    """
    own = run.root.resolve()
    try:
        return [f for f in sorted(own.parent.iterdir()) if f.resolve() != own and _is_run(f)]
    except OSError:
        return []


def _is_run(folder: Path) -> bool:
    try:
        return Run(folder).config.is_file()
    except OSError:
        return False


def _alike(run: Run, other: Run, ours: Evaluation) -> Evaluation | None:
    """Returns the other run's newest evaluation with the same model and settings as ours; None if
    it has none, or is not a replicate. The configuration, which is slow to read, is compared last.
    """
    named = parse_evaluation(ours.folder)
    folders = [f for f in other.evaluations if parse_evaluation(f) == named and is_complete(f)]
    read = [evaluations.read(folder) for folder in folders]
    same = [e for e in read if _settings(e) == _settings(ours) and e.grader == ours.grader]
    if not same or seeds.differing(run, other) or not seeds.same_model(run, other, ours.label):
        return None
    newest = max(same, key=lambda e: e.age)
    return newest if newest.values["pass@1"].keys() == ours.values["pass@1"].keys() else None


def _settings(evaluation: Evaluation) -> dict[str, Any]:
    return {**evaluation.shared_settings, "seed": None}
