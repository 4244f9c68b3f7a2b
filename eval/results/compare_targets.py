"""Resolves the targets of ``warmstart compare`` and checks that their evaluations used the same
sampling settings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from eval.evaluation_settings import SETTINGS
from eval.results import base_vs_sft
from eval.results import evaluation as evaluations
from eval.results.evaluation import Evaluation
from trainer.preflight import find_run
from trainer.recipe import load as configs
from trainer.run import models
from trainer.run.folder import Run, is_complete, parse_evaluation
from trainer.run.model_label import ModelLabel

OWN = ("tokenizer", "seed", "limit", "rollouts", "benchmarks", "dtype")
"""Settings in which two evaluations may differ: the comparison is about them, or handles the
difference.
"""
PROMPT = ("prompt", "system", "prefill")
WORDS = {
    "prompt": "the prompt (eval.prompt; --across-prompts compares them all the same)",
    "system": "the system turn (eval.system; --across-prompts)",
    "prefill": "the beginning of the answers (eval.prefill; --across-prompts)",
    "max_tokens": "the budget (eval.max_tokens)",
    "template": "the chat template, which is part of the code",
}


@dataclass(frozen=True)
class Subject:
    """One evaluation of a comparison."""

    name: str
    evaluation: Evaluation
    reference: Mapping[str, Any] | None
    """Published figures, from the run's recipe."""


def find(target: str, partial: bool) -> Subject:
    """Returns a run's newest evaluation, the newest of RUN@base, RUN@STEP, RUN@avg-NAME or
    RUN@rl-N, or the one in a folder.

    Raises UserError when ``target`` is none of these, or when its evaluation is not complete,
    unless ``partial``.
    """
    folder = Path(target)
    if (folder / SETTINGS).exists():
        if not is_complete(folder) and not (partial and evaluations.has_begun(folder)):
            fix = "run it first" if partial else "complete it, or compare with --partial"
            raise UserError(f"{folder} is not a complete evaluation: {fix}")
        run, found = Run(folder.resolve().parent.parent), evaluations.read(folder)
    else:
        named = Run.find(target)
        name, _, label = ("", "", "") if named else target.rpartition("@")
        run_or_none = named or (Run.find(name) if name else None)
        if run_or_none is None:
            raise UserError(
                f"{target} is neither a run, RUN@base, RUN@STEP, RUN@avg-NAME, RUN@rl-N nor an "
                f"evaluation's folder{find_run.near(name or target)}"
            )
        run, found = run_or_none, _evaluation(run_or_none, label, partial)
    reference = configs.read(run.config).get("reference") if run.config.exists() else None
    return Subject(f"{run.name}@{found.label}", found, reference)


def _evaluation(run: Run, label: str, partial: bool) -> Evaluation:
    """Returns the run's newest evaluation of ``label``, or of its newest step if ``label`` is
    empty.
    """
    if not label:
        return base_vs_sft.newest(run, partial).known
    try:
        parsed = ModelLabel.parse(label)
    except UserError as e:
        raise UserError(
            f"{run.name}@{label}: write {run.name}@base, {run.name}@STEP with a number, "
            f"{run.name}@avg-NAME or {run.name}@rl-N"
        ) from e
    wanted = models.resolve(run, parsed)
    evaluated = [c.known for c in base_vs_sft.of_model(run, wanted, partial)]
    found = [evaluation for evaluation in evaluated if evaluation.label == wanted]
    if not found:
        known = {parse_evaluation(f)[1] for f in run.evaluations if is_complete(f)}
        there = ", ".join(label.word for label in sorted(known)) or "none"
        raise UserError(
            f"{run.root} has no complete evaluation of {label} (available: {there}): warmstart "
            f"eval {run.root} {wanted.word}"
        )
    return found[0]


def check(first: Subject, other: Subject, across_prompts: bool = False) -> None:
    """Raises UserError, naming the differences, unless both used the same sampling settings and
    benchmark files; ``across_prompts`` accepts different prompts.
    """
    a, b = first.evaluation.shared_settings, other.evaluation.shared_settings
    own = (*OWN, *PROMPT) if across_prompts else OWN
    told = []
    for key in {**a, **b}:
        if key not in own and a.get(key) != b.get(key):
            values = "" if key == "template" else f" {_told(key, a)} and {_told(key, b)}"
            told.append(WORDS.get(key, key) + values)
    files, other_files = a["benchmarks"], b["benchmarks"]
    sets = sorted(files.keys() & other_files.keys())
    told += [f"their files of {name} differ" for name in sets if files[name] != other_files[name]]
    if not sets:
        told = [f"they have no set in common: {', '.join(files)} and {', '.join(other_files)}"]
    if told:
        raise UserError(
            f"{first.name} and {other.name} cannot be compared, because they differ in more than "
            f"the model: {'; '.join(told)}. Evaluate one of them again with the settings of the "
            "other (warmstart eval RUN STEP eval.KEY=VALUE)"
        )


def _told(key: str, settings: Mapping[str, Any]) -> str:
    if key in PROMPT:
        return json.dumps(settings[key], ensure_ascii=False) if key in settings else "none"
    return str(settings.get(key))
