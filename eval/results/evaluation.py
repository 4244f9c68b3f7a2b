"""Evaluations read back from a run's files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import MANIFEST, read_json, read_object, sha256_json
from common.records import Grade, Key, Problem, Rollout
from data_prep import rules
from data_prep.benchmarks import sets
from eval.evaluate import PROBLEMS
from eval.evaluation_settings import SETTINGS, EvaluationSettings
from eval.generation import rollout_files
from eval.grading import grade as grading
from eval.grading import metrics, rl_signal
from eval.grading.metrics import METRICS, TOTAL
from trainer.run import models
from trainer.run.folder import Run, is_complete, parse_evaluation
from trainer.run.model_label import BASE, ModelLabel

RL_POOL = "rl_pool"
"""Name of the set with a run's problems for RL (:mod:`eval.rl.pool`), which is not a benchmark."""
Values = Mapping[tuple[str, str], float]
"""(set, problem id) -> one accuracy of that problem, in 0..1."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation. A partial one lacks some of its rollouts; its figures count them as
    ``missing``.
    """

    folder: Path
    label: ModelLabel
    settings: EvaluationSettings

    @cached_property
    def bare(self) -> str | None:
        """The model's name if its run evaluates it without training one, else None."""
        return models.bare(Run(self.folder.parents[1])) if self.label == BASE else None

    @property
    def name(self) -> str:
        """The model's name in tables: its label, or a bare model's own."""
        return self.bare or str(self.label)

    @property
    def n(self) -> int:
        """Rollouts per problem."""
        return self.settings.sampling.rollouts

    @property
    def age(self) -> float:
        """Unix time of its completion or last grading; if it is partial, of its start."""
        path = self.folder / (SETTINGS if self.is_partial else MANIFEST)
        return path.stat().st_mtime

    @cached_property
    def shared_settings(self) -> dict[str, Any]:
        """The content of settings.json without the model. Other versions of the code may have other
        keys.
        """
        settings = read_json(self.folder / SETTINGS)
        return {key: value for key, value in settings.items() if key != "model"}

    @cached_property
    def is_partial(self) -> bool:
        """Whether the folder has no manifest yet."""
        return not is_complete(self.folder)

    @cached_property
    def device_seconds(self) -> tuple[str, float] | None:
        """(device, mean device seconds per rollout, engine start-up included); None if it was not
        timed.
        """
        made = {} if self.is_partial else read_json(self.folder / MANIFEST)
        rollouts = made.get("timed_rollouts")
        if not rollouts:
            return None
        return made["device"], made["wall_seconds"] * made["devices"] / rollouts

    @cached_property
    def problems(self) -> list[Problem]:
        """The evaluated problems, with their sets."""
        return sets.read_problems(self.folder / PROBLEMS)

    @cached_property
    def rollouts(self) -> dict[Key, Rollout]:
        """Rollouts by key. Raises UserError when the evaluation is complete and its rollouts are
        not.
        """
        rollouts = rollout_files.read(self.folder / rollout_files.ROLLOUTS, growing=self.is_partial)
        remedy = (
            f"delete {self.folder / MANIFEST} and run the same warmstart eval again: it generates "
            "what is missing"
        )
        self._check_whole(rollouts, rollout_files.ROLLOUTS, remedy)
        return rollouts

    @cached_property
    def grades(self) -> dict[Key, Grade]:
        """Grades by key, from disk; for a partial evaluation they are computed here and not
        written.

        Raises UserError when the evaluation is complete and its grades are not.
        """
        if not self.is_partial:
            there = rollout_files.read_grades(self.folder / rollout_files.GRADES)
            self._check_whole(there, rollout_files.GRADES, self._regrade)
            return there
        style, prefill = self.settings.answer_style, self.settings.prompt.prefill
        grades = grading.grade(self.rollouts.values(), self.problems, style, prefill)
        return {grade.key: grade for grade in grades}

    @cached_property
    def figures(self) -> dict[str, dict[str, Any]]:
        """Figures by set (:func:`eval.grading.metrics.summarise`), from metrics.json or, if
        partial, computed here.

        Raises UserError when the evaluation is complete and has no metrics.json.
        """
        if not self.is_partial:
            if not (self.folder / METRICS).exists():
                raise UserError(f"{self.folder} is damaged (no {METRICS}): {self._regrade}")
            return read_object(self.folder / METRICS)
        budget = self.settings.sampling.max_tokens
        return metrics.summarise(
            self.problems, self.rollouts, self.grades, self.n, budget, partial=True
        )

    @property
    def grader(self) -> int:
        """Version of the rules that graded it; the current one's, if it is partial."""
        return self.figures[TOTAL].get("grader", rules.UNRECORDED)

    @property
    def _regrade(self) -> str:
        return f"warmstart grade {self.folder} writes it again"

    def _check_whole(self, records: Mapping[Key, Any], name: str, remedy: str) -> None:
        wanted = {(p.set, p.id, k) for p in self.problems for k in range(self.n)}
        if not self.is_partial and records.keys() != wanted:
            there = f"{len(wanted & records.keys()):,} of {len(wanted):,} rollouts"
            raise UserError(f"{self.folder / name} is damaged ({there}): {remedy}")

    @cached_property
    def values(self) -> Mapping[str, Values]:
        """Accuracy's name -> its value for each problem."""
        return metrics.per_problem(self.problems, self.grades, self.n)

    @cached_property
    def signals(self) -> Mapping[str, Values]:
        """Each of ``eval.grading.rl_signal.SIGNALS`` -> its value for each problem; ``distinct`` is
        a number of answers. Computed from the grades, so older evaluations have it too.
        """
        return rl_signal.per_problem(self.grades.values())

    @cached_property
    def solved(self) -> Mapping[int, Values]:
        """k -> pass@k for each problem that has k rollouts."""
        counts = metrics.tallies(self.grades.values())
        return {
            k: {
                key: metrics.pass_at_k(t.total, t.right, k)
                for key, t in counts.items()
                if t.total >= k
            }
            for k in range(1, self.n + 1)
        }

    def values_within(self, budget: int) -> Mapping[str, Values]:
        """Returns ``values`` as if rollouts longer than ``budget`` tokens had no answer."""
        within = dict(self.grades)
        for key, grade in self.grades.items():
            if self.rollouts[key].tokens > budget:
                within[key] = replace(grade, extracted=None, exact=False)
        return metrics.per_problem(self.problems, within, self.n)


def groups(run: Run, partial: bool) -> list[dict[ModelLabel, Evaluation]]:
    """Returns evaluations by model, one dict per group of evaluations whose settings differ only in
    the model.

    Evaluations of RL's pool are left out. If a group has two of one model, because it was exported
    twice, the newer one is taken.
    """
    found: dict[str, dict[ModelLabel, Evaluation]] = {}
    for folder in run.evaluations:
        if is_of_pool(folder):
            continue
        if is_complete(folder) or (partial and has_begun(folder)):
            evaluation = read(folder)
            group = found.setdefault(sha256_json(evaluation.shared_settings), {})
            other = group.get(evaluation.label)
            if other is None or evaluation.age >= other.age:
                group[evaluation.label] = evaluation
    return list(found.values())


def check_graders(evaluations: Iterable[Evaluation]) -> None:
    """Raises UserError, naming the commands, when the evaluations were graded under different
    versions of the rules.
    """
    by_version: dict[int, list[Evaluation]] = {}
    for evaluation in evaluations:
        by_version.setdefault(evaluation.grader, []).append(evaluation)
    if len(by_version) > 1:
        older = [e for v, of in sorted(by_version.items())[:-1] for e in of]
        fixes = "; ".join(dict.fromkeys(f"warmstart grade {e.folder}" for e in older))
        raise UserError(
            f"evaluations graded under different versions of the rules "
            f"({', '.join(map(str, sorted(by_version)))}) cannot be shown together: {fixes}"
        )


def is_of_pool(folder: Path) -> bool:
    """Returns whether an evaluation's folder is one of RL's pool."""
    return RL_POOL in parse_evaluation(folder)[0].split("+")


def has_begun(folder: Path) -> bool:
    """Returns whether an evaluation's folder has at least one rollout."""
    path = folder / rollout_files.ROLLOUTS
    if not all(p.exists() for p in (folder / SETTINGS, folder / PROBLEMS, path)):
        return False
    with path.open("rb") as f:
        return f.readline().endswith(b"\n")


def read(folder: Path) -> Evaluation:
    """Returns the evaluation in ``folder``."""
    settings = EvaluationSettings.read(folder / SETTINGS)
    return Evaluation(folder, settings.label, settings)
