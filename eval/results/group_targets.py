"""Resolves targets of ``warmstart compare`` that are groups, ``RUN_A,RUN_B``, and checks that their
members are replicates evaluated under the same settings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path

from common.differences import differences
from common.errors import UserError
from eval.evaluation_settings import SETTINGS
from eval.grading.replicates import Runs
from eval.results import seeds
from eval.results.base_vs_sft import by_set
from eval.results.common_problems import Problems
from eval.results.compare_targets import Subject, find
from eval.results.evaluation import Evaluation, Values, check_graders
from trainer.run.folder import Run
from trainer.run.model_label import BASE, ModelLabel


@dataclass(frozen=True)
class Group:
    """The evaluations of one model of several replicates, or a single evaluation."""

    name: str
    members: Sequence[Subject]

    @property
    def evaluations(self) -> list[Evaluation]:
        """The members' evaluations."""
        return [member.evaluation for member in self.members]

    @property
    def is_single(self) -> bool:
        """Whether it is one run."""
        return len(self.members) == 1

    @property
    def label(self) -> ModelLabel:
        """The label of every member."""
        return self.members[0].evaluation.label

    @cached_property
    def trained(self) -> Mapping[Path, Evaluation]:
        """Folder of a run -> its evaluation; empty for the base model, which no run has trained."""
        if self.label == BASE:
            return {}
        return {run_of(e).root.resolve(): e for e in self.evaluations}

    def values(self, keys: Problems, name: str, metric: str) -> Runs:
        """Returns an accuracy of the problems of one set, or of all, by run and set."""
        return runs_of([e.values[metric] for e in self.evaluations], keys, name)


def runs_of(values: Sequence[Values], keys: Problems, name: str) -> Runs:
    """Returns values by run and set, of the problems in ``keys``, which all runs have, sorted."""
    order = sorted(keys)
    return [by_set({key: of[key] for key in order}, name) for of in values]


def run_of(evaluation: Evaluation) -> Run:
    """Returns the run that an evaluation belongs to."""
    return Run(evaluation.folder.resolve().parent.parent)


def parts(target: str) -> list[str]:
    """Returns the members' targets. A comma that is part of a run's name does not separate members:
    at each position the longest text that is a target is taken. Raises UserError when a member is
    empty.
    """
    words, found = target.split(","), []
    while words:
        known = (n for n in range(len(words), 1, -1) if _is_known(",".join(words[:n])))
        count = next(known, 1)
        found.append(",".join(words[:count]))
        words = words[count:]
    if len(found) > 1 and not all(found):
        raise UserError(f"{target} has an empty member: write RUN,RUN with one comma between two")
    return found


def resolve(targets: Sequence[str], partial: bool = False) -> Group:
    """Returns the group of these members; for one target, only its evaluation.

    Raises UserError when a target is not valid for ``compare``; when two members are the same run,
    have different labels, are not replicates (naming the settings that differ) or have the same
    seed; when they were not evaluated under the same settings; and when ``partial`` requests
    incomplete evaluations of a group.
    """
    if len(targets) > 1 and partial:
        raise UserError(
            f"{','.join(targets)}: a group needs complete evaluations: leave out --partial"
        )
    members = [find(target, partial) for target in targets]
    if len(members) == 1:
        return Group(members[0].name, members)
    if len({member.name for member in members}) < len(members):
        members = [Subject(str(m.evaluation.folder), m.evaluation, m.reference) for m in members]
    for one, other in combinations(members, 2):
        _check_pair(one, other)
    check_graders(member.evaluation for member in members)
    runs = ", ".join(member.name.rpartition("@")[0] or member.name for member in members)
    return Group(f"{runs} @ {members[0].evaluation.label}", members)


def check_replicates(one: Run, other: Run) -> None:
    """Raises UserError unless two runs are replicates with different seeds."""
    if one.root.resolve() == other.root.resolve():
        raise UserError(f"{one.root} is in the group twice: each member must be another run")
    if found := seeds.differing(one, other):
        raise UserError(
            f"{one.root} and {other.root} are not replicates: they differ in more than train.seed: "
            f"{'; '.join(found)}. Compare them as two targets, with a space between them"
        )
    seed = seeds.seed_of(one)
    if seed == seeds.seed_of(other):
        raise UserError(
            f"{one.root} and {other.root} have the same train.seed ({seed}), so they say nothing "
            "about other seeds: leave one out, or train one with train.seed=N run.name=NAME"
        )


def independent(one: Group, other: Group) -> bool:
    """Returns True if no run has trained a model of both groups, False if both are models of the
    same runs. Raises UserError when they share only some of their runs.
    """
    shared = one.trained.keys() & other.trained.keys()
    if not shared:
        return True
    if one.trained.keys() == other.trained.keys():
        return False
    names = ", ".join(sorted(root.name for root in shared))
    raise UserError(
        f"{one.name} and {other.name} share only some runs ({names}): compare the same runs at "
        "both steps, or groups without a common run"
    )


def _check_pair(one: Subject, other: Subject) -> None:
    a, b = one.evaluation, other.evaluation
    mine, theirs = run_of(a), run_of(b)
    if mine.root.resolve() != theirs.root.resolve() and a.label != b.label:
        raise UserError(
            f"{one.name} and {other.name} are not replicates, because {a.label} is not {b.label}: "
            "give each member the same step (RUN@STEP,RUN@STEP)"
        )
    check_replicates(mine, theirs)
    if not seeds.same_model(mine, theirs, a.label):
        raise UserError(
            f"{one.name} and {other.name} are not replicates: their members or shares differ"
        )
    if a.label.kind == "rl":
        raise UserError(
            f"{one.name} and {other.name} are models of RL, whose settings are not compared, so "
            "they cannot form a group: give them as separate targets"
        )
    if told := list(_settings(a, b)):
        raise UserError(
            f"{one.name} and {other.name} were not evaluated under the same settings: "
            f"{'; '.join(told)}. Evaluate one again with the settings of the other (warmstart "
            "eval RUN STEP eval.KEY=VALUE)"
        )


def _settings(one: Evaluation, other: Evaluation) -> Iterator[str]:
    """Yields the settings that differ, except for the seed of the rollouts."""
    ours, theirs = ({**e.shared_settings, "seed": None} for e in (one, other))
    yield from differences(ours, theirs).values()


def _is_known(target: str) -> bool:
    name, _, label = target.rpartition("@")
    named = name and "," not in label and Run.find(name)
    return bool((Path(target) / SETTINGS).exists() or Run.find(target) or named)
