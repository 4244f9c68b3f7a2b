"""Finds the checkpoints and averages of a run that RL could start from and that were evaluated
under the same settings; lists the others with the commands that evaluate them so.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from omegaconf import DictConfig

from common.files import MANIFEST, read_json
from data_prep.benchmarks import sets as benchmarks
from eval import evaluate
from eval.evaluation_settings import EvaluationSettings
from eval.grading.intervals import Sets
from eval.results import evaluation as evaluations
from eval.results.base_vs_sft import by_set
from eval.results.evaluation import Evaluation, Values
from trainer.preflight.context import prompt_of
from trainer.run import models, step_metrics
from trainer.run.folder import Run, is_complete, parse_evaluation
from trainer.run.model_label import ModelLabel

KINDS = ("sft", "average")
"""Kinds of models that RL could start from."""


@dataclass(frozen=True)
class Candidate:
    """A model with a complete evaluation."""

    evaluation: Evaluation
    trained: Mapping[str, Any]
    """The metrics of the model's step; empty for an average, and if the run has none for
    the step.
    """

    @property
    def label(self) -> ModelLabel:
        """The model's label."""
        return self.evaluation.label

    @property
    def n(self) -> int:
        """Rollouts per problem."""
        return self.evaluation.n

    @property
    def held_out(self) -> float | None:
        """The loss on the held-out rows after the model's step; None if it was not measured
        there.
        """
        return self.trained.get("val_loss")

    @property
    def held_out_entropy(self) -> float | None:
        """The entropy on the held-out rows after the model's step, in nats per token; None if it
        was not measured there.
        """
        return self.trained.get("val_entropy")

    @cached_property
    def criterion(self) -> Sets:
        """pass@n of each problem, by set, with n the rollouts per problem."""
        return self.of_problems(self.evaluation.solved[self.n])

    def of_problems(self, values: Values) -> Sets:
        """Returns values by set, in the order of the problems, which is that of every candidate."""
        keys = [(p.set, p.id) for p in self.evaluation.problems]
        return by_set({key: values[key] for key in keys if key in values})


@dataclass(frozen=True)
class Field:
    """The candidates of a run, evaluated under the same settings, sorted by label; and the models
    left out, as sentences.
    """

    candidates: Sequence[Candidate]
    left_out: Sequence[str]


def find(run: Run, config: DictConfig) -> Field:
    """Returns the candidates with complete evaluations under the settings that most of them share
    (the newest if several settings tie) that were graded by the newest rules among these.

    RL's models and the base model are not candidates. Raises UserError when such an evaluation is
    damaged.
    """
    groups = [
        {label: e for label, e in group.items() if label.kind in KINDS}
        for group in evaluations.groups(run, partial=False)
    ]
    groups = [group for group in groups if group]
    alike = max(groups, key=lambda g: (len(g), max(e.age for e in g.values())), default={})
    rules = max((e.grader for e in alike.values()), default=0)
    chosen = {label: e for label, e in alike.items() if e.grader == rules}
    begun = {parse_evaluation(f)[1] for f in run.evaluations if not is_complete(f)}
    there = {*models.exported(run), *map(ModelLabel, run.checkpoints), *begun}
    there |= {label for group in groups for label in group}
    words = []
    if chosen:
        like = next(iter(chosen.values()))
        words = [*_benchmarks(like, config), *overrides(like.settings, config)]
    left = []
    for label in sorted(label for label in there - chosen.keys() if label.kind in KINDS):
        if label in alike:
            fix = f"`warmstart grade {alike[label].folder}`"
            left.append(f"{label} was graded under older rules: {fix}.")
            continue
        others = [group[label] for group in groups if label in group]
        if others:
            keys = ", ".join(_different(next(iter(chosen.values())), others))
            why = f"was evaluated under other settings ({keys})"
        else:
            why = "has an unfinished evaluation" if label in begun else "is not evaluated"
        left.append(_left_out(run, label, why, words))
    found = of(step_metrics.read(run), [chosen[label] for label in sorted(chosen)])
    return Field(found, left)


def of(steps: Sequence[Mapping[str, Any]], evaluated: Sequence[Evaluation]) -> list[Candidate]:
    """Returns the evaluations as candidates, with the metrics of their steps."""
    by_number = {line["step"]: line for line in steps}
    return [Candidate(e, by_number.get(e.label.step, {})) for e in evaluated]


def _different(one: Evaluation, others: Sequence[Evaluation]) -> list[str]:
    """Returns the settings in which an evaluation differs from any of the others."""
    ours = one.shared_settings
    theirs = [e.shared_settings for e in others]
    keys = {key for of in [ours, *theirs] for key in of}
    return sorted(key for key in keys if any(of.get(key) != ours.get(key) for of in theirs))


def _left_out(run: Run, label: ModelLabel, why: str, words: Sequence[str]) -> str:
    """Returns why a model is not a candidate, with the command that makes it one."""
    line = shlex.join(["warmstart", "eval", str(run.root), label.word, *words])
    if not is_complete(run.export(label)):
        if label.step not in run.checkpoints:
            return f"{label} {why}, and its weights were deleted."
        line = f"{shlex.join(['warmstart', 'export', str(run.root), label.word])} && {line}"
    return f"{label} {why}: `{line}`."


def _benchmarks(evaluation: Evaluation, config: DictConfig) -> list[str]:
    """Returns the override for the folder that its problems were read from, if it is not the
    recipe's; nothing if an older version did not record it.
    """
    folder = read_json(evaluation.folder / MANIFEST).get("benchmarks")
    return [] if folder in (None, config.eval.benchmarks) else [f"eval.benchmarks={folder}"]


def overrides(settings: EvaluationSettings, config: DictConfig) -> list[str]:
    """Returns the overrides with which the run's recipe evaluates as ``settings`` did."""
    sampling, prompt, values = settings.sampling, settings.prompt, config.eval
    own, asked = evaluate.sampling(config), prompt_of(config)
    pairs = {
        "sets": (list(settings.benchmarks), benchmarks.expand(list(values.sets))),
        "limit": (settings.limit, values.limit),
        "rollouts": (sampling.rollouts, own.rollouts),
        "temperature": (sampling.temperature, own.temperature),
        "top_p": (sampling.top_p, own.top_p),
        "max_tokens": (sampling.max_tokens, own.max_tokens),
        "seed": (sampling.seed, own.seed),
        "prompt": (prompt.text, asked.text),
        "system": (prompt.system or "", asked.system or ""),
        "prefill": (prompt.prefill, asked.prefill),
        "extractor": (settings.answer_style, values.extractor or config.data.answer_style),
        "dtype": (settings.dtype, values.dtype),
    }
    return [f"eval.{key}={_shown(done)}" for key, (done, now) in pairs.items() if done != now]


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    return f"[{','.join(value)}]" if isinstance(value, list) else str(value)
