"""Candidates of a group of replicates: models that every run of the group has, evaluated under the
same settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from common.differences import differences
from common.errors import UserError
from eval.choice import candidates
from eval.choice.candidates import Candidate, Field
from eval.grading import replicates
from eval.grading.intervals import Sets
from eval.grading.metrics import TOTAL
from eval.grading.replicates import Runs
from eval.results import seeds
from eval.results.evaluation import check_graders
from eval.results.group_targets import check_replicates, runs_of
from trainer.run import frozen_config
from trainer.run.folder import Run
from trainer.run.model_label import ModelLabel


@dataclass(frozen=True)
class ReplicatedCandidate:
    """One model of every run, in the order of the runs."""

    members: Sequence[Candidate]

    @property
    def label(self) -> ModelLabel:
        """The label of every member."""
        return self.members[0].label

    @property
    def n(self) -> int:
        """Rollouts per problem."""
        return self.members[0].n

    @property
    def held_out(self) -> float | None:
        """The mean over runs of the loss on the held-out rows; None if a run has none."""
        losses = [m.held_out for m in self.members if m.held_out is not None]
        return sum(losses) / len(losses) if len(losses) == len(self.members) else None

    @property
    def runs(self) -> Runs:
        """pass@n of each problem, by run and set."""
        every = [m.evaluation.solved[m.n] for m in self.members]
        return runs_of(every, set.intersection(*map(set, every)), TOTAL)

    @property
    def criterion(self) -> Sets:
        """The mean over runs of each problem's pass@n, by set."""
        return replicates.over_runs(self.runs)


@dataclass(frozen=True)
class ReplicatedField:
    """The candidates of all runs, sorted by label; the models left out, as sentences; and each
    run's own candidates.
    """

    runs: Sequence[Run]
    candidates: Sequence[ReplicatedCandidate]
    left_out: Sequence[str]
    own: Mapping[str, Field]
    """Folder of a run -> its candidates."""


def find(runs: Sequence[Run]) -> ReplicatedField:
    """Returns the candidates of two or more replicates.

    Raises UserError when two of the runs are not replicates with different seeds, when one has no
    complete evaluation of a checkpoint or average, or when they were not evaluated under the same
    settings and graded by the same rules.
    """
    for one, other in combinations(runs, 2):
        check_replicates(one, other)
    fields = {str(run.root): candidates.find(run, frozen_config.read(run)) for run in runs}
    for run, field in zip(runs, fields.values(), strict=True):
        if not field.candidates:
            why = " ".join(field.left_out) or f"warmstart eval {run.root} makes one"
            raise UserError(
                f"{run.root} has no complete evaluation of a checkpoint or average: {why}"
            )
    _check_alike(runs, list(fields.values()))
    check_graders(c.evaluation for field in fields.values() for c in field.candidates)
    found, left = [], []
    by_run = [{c.label: c for c in field.candidates} for field in fields.values()]
    for label in sorted({label for of in by_run for label in of}):
        absent = [run.name for run, of in zip(runs, by_run, strict=True) if label not in of]
        if absent:
            left.append(f"{label} is a candidate of some runs and not of {', '.join(absent)}.")
        elif not all(seeds.same_model(runs[0], run, label) for run in runs):
            left.append(f"{label} is an average of other steps or shares in each run.")
        else:
            found.append(ReplicatedCandidate([of[label] for of in by_run]))
    for run, field in zip(runs, fields.values(), strict=True):
        left += [f"{run.name}: {line}" for line in field.left_out]
    return ReplicatedField(runs, found, left, fields)


def _check_alike(runs: Sequence[Run], fields: Sequence[Field]) -> None:
    """Raises UserError unless the runs' candidates were evaluated under the same settings, except
    for the seed of the rollouts.
    """
    first, *others = ({**f.candidates[0].evaluation.shared_settings, "seed": None} for f in fields)
    for run, settings in zip(runs[1:], others, strict=True):
        if told := differences(first, settings):
            raise UserError(
                f"most candidates of {runs[0].root} and of {run.root} were not evaluated under "
                f"the same settings: {'; '.join(told.values())}. Evaluate those of one again with "
                "the settings of the other (warmstart eval RUN STEP eval.KEY=VALUE)"
            )
