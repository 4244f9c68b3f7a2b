"""The evaluation stage: writes one model's rollouts, grades and metrics into a folder of its
run.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from common import provenance
from common.differences import differences
from common.errors import UserError
from common.files import (
    MANIFEST,
    file_errors,
    read_json,
    sha256_file,
    sha256_json,
    write_json,
    write_lock,
)
from common.progress import waiting
from common.records import Problem
from data_prep.benchmarks import sets as benchmarks
from data_prep.tokenizer import chat
from eval import taking_over
from eval.evaluation_settings import SETTINGS, EvaluationSettings
from eval.generation import rollout_files
from eval.generation.generate import check as check_inputs
from eval.generation.generate import generate
from eval.generation.settings import EngineSettings, Model, SamplingSettings
from eval.grading import grade, metrics
from trainer.preflight.context import prompt_of
from trainer.run import models
from trainer.run.folder import Run, is_complete, lock_of
from trainer.run.model_label import BASE, ModelLabel
from trainer.run.trained_from import tokenizer_folder

PROBLEMS = "problems.jsonl"


@dataclass(frozen=True)
class Plan:
    """The inputs of an evaluation, and its folder, whose name has a hash of the settings."""

    folder: Path
    settings: EvaluationSettings
    model: Model


def plan(config: DictConfig, run: Run, label: ModelLabel) -> Plan:
    """Plans the evaluation of the base model or of an export: of an SFT step, an RL step or an
    average.

    The folder's name has a hash of everything that changes a rollout or its grade. Raises UserError
    when the export, the model, the tokenizer or a benchmark file is missing.
    """
    path, revision = _model(config, run, label)
    model = Model(path, tokenizer_folder(config), config.eval.dtype, revision, config.model.context)
    settings = _settings(config, label, model)
    folder = run.evaluation(
        suite(list(settings.benchmarks)), label, sha256_json(settings.to_json())
    )
    return Plan(folder, settings, model)


def evaluate(config: DictConfig, run: Run, label: ModelLabel) -> Path:
    """Evaluates the base model or an export (of an SFT step, an RL step or an average); returns the
    folder.

    Returns a complete folder immediately, and resumes an interrupted evaluation. Takes over the
    rollouts of an evaluation that differs only in their number; the manifest records how many, by
    the folder that generated them. Raises UserError as ``plan`` does, and while another process
    writes the folder.
    """
    with waiting("reading the model and the benchmarks"):
        planned = plan(config, run, label)
    folder = planned.folder
    if is_complete(folder):
        return folder
    problems = benchmarks.load(
        Path(config.eval.benchmarks), list(config.eval.sets), config.eval.limit
    )
    settings = planned.settings
    # Otherwise there may be nothing to generate.
    if not folder.exists() and not taking_over.usable(settings, run.evaluations):
        asked = (settings.prompt, settings.sampling.max_tokens, config.device)
        check_inputs(problems, planned.model, *asked)
    with write_lock(lock_of(folder)):
        begin = time.monotonic()
        with file_errors(folder):
            _freeze(folder, settings)
            benchmarks.write_problems(folder / PROBLEMS, problems)
            taking_over.take_over(folder, settings, problems, run.evaluations)
        engines = EngineSettings.from_config(config)
        generated = generate(
            problems,
            folder,
            planned.model,
            settings.prompt,
            settings.sampling,
            engines,
        )
        # These count this call only: a resumed evaluation took longer and has more rollouts, and so
        # has one that took some over.
        used = {
            "device": engines.device,
            "devices": generated.engines * engines.tensor_parallel,
            "timed_rollouts": generated.made,
        }
        with file_errors(folder), waiting("grading"):
            _judge(folder, problems, settings)
            rollouts = rollout_files.read(folder / rollout_files.ROLLOUTS).values()
            _complete(
                folder,
                taken_over=taking_over.taken_over(rollouts),
                versions=provenance.versions(),
                benchmarks=str(config.eval.benchmarks),
                wall_seconds=round(time.monotonic() - begin, 1),
                **used,
            )
    return folder


def regrade(folder: Path) -> Path:
    """Grades an evaluation's rollouts again and rewrites its metrics; returns the folder.

    Raises UserError when the folder is not an evaluation, when rollouts are missing, or while
    another process writes the folder.
    """
    for name in (SETTINGS, PROBLEMS):
        if not (folder / name).exists():
            raise UserError(
                f"{folder} is not an evaluation (it has no {name}): warmstart eval RUN makes one"
            )
    with write_lock(lock_of(folder)), file_errors(folder), waiting("grading"):
        problems = benchmarks.read_problems(folder / PROBLEMS)
        settings = EvaluationSettings.read(folder / SETTINGS)
        _judge(folder, problems, settings)
        _complete(folder, graded_with=provenance.versions())
    return folder


def _judge(folder: Path, problems: list[Problem], settings: EvaluationSettings) -> None:
    grade.grade_folder(folder, problems, settings.answer_style, settings.prompt.prefill)
    sampling = settings.sampling
    metrics.write_metrics(folder, problems, sampling.rollouts, sampling.max_tokens)


def _complete(folder: Path, **facts: Any) -> None:
    before = read_json(folder / MANIFEST) if is_complete(folder) else {}
    names = (SETTINGS, PROBLEMS, rollout_files.ROLLOUTS, rollout_files.GRADES, metrics.METRICS)
    hashes = {name: sha256_file(folder / name) for name in names}
    write_json(folder / MANIFEST, before | {"files": hashes} | facts)


def suite(sets: list[str]) -> str:
    """Returns a name for benchmark sets: that of the suite with exactly these sets, otherwise the
    sets joined by ``+``.
    """
    names = (name for name, known in benchmarks.SUITES.items() if set(known.sets) == set(sets))
    return next(names, "+".join(sets))


def sampling(config: DictConfig) -> SamplingSettings:
    """Returns the recipe's sampling; the suite gives the values that are null in the recipe. Raises
    UserError when suites differ.
    """
    values = config.eval
    rollouts, temperature = benchmarks.protocol(
        list(values.sets), values.rollouts, values.temperature
    )
    return SamplingSettings(rollouts, temperature, values.top_p, values.max_tokens, values.seed)


def _model(config: DictConfig, run: Run, label: ModelLabel) -> tuple[str, str | None]:
    """Returns the model's folder or hub name, and its revision on the hub (None for a folder)."""
    if label == BASE:
        path = config.model.path
        return path, None if Path(path).exists() else config.model.revision
    export = run.export(label)
    if not is_complete(export):
        there = ", ".join(found.word for found in models.exported(run)) or "none"
        saved = ", ".join(map(str, run.checkpoints)) or "none"
        what = label.word if label.average is None else "--average STEP,STEP"
        if label.step is not None and label.step not in run.checkpoints:
            what = "STEP"
        raise UserError(
            f"{run.root} has no export of {label} (exports: {there}; checkpoints: {saved}): "
            f"warmstart export {run.root} {what}"
        )
    return str(export), None


def _settings(config: DictConfig, label: ModelLabel, model: Model) -> EvaluationSettings:
    return EvaluationSettings(
        label=label,
        identity=_identity(model),
        benchmarks=benchmarks.hashes(Path(config.eval.benchmarks), list(config.eval.sets)),
        template=chat.template_identity(chat.template()),
        tokenizer=sha256_file(model.tokenizer / "tokenizer.json"),
        limit=config.eval.limit,
        answer_style=config.eval.extractor or config.data.answer_style,
        prompt=prompt_of(config),
        sampling=sampling(config),
        dtype=model.dtype,
    )


def _identity(model: Model) -> dict[str, str | None]:
    folder = Path(model.path)
    if not folder.exists():
        return {"name": model.path, "revision": model.revision}
    if is_complete(folder):
        return {MANIFEST: sha256_file(folder / MANIFEST)}
    files = sorted([*folder.glob("config.json"), *folder.glob("*.safetensors")])
    if not (folder / "config.json").exists():
        raise UserError(
            f"{folder} is not a model (it has no config.json): set model.path to a model's folder"
        )
    return {path.name: sha256_file(path) for path in files}


def _freeze(folder: Path, settings: EvaluationSettings) -> None:
    path = folder / SETTINGS
    if not path.exists():
        write_json(path, settings.to_json())
        return
    EvaluationSettings.read(path)
    if changed := differences(read_json(path), settings.to_json()):
        raise UserError(
            f"{folder} has rollouts with other settings ({path}):\n  "
            + "\n  ".join(changed.values())
            + "\nmove the folder away"
        )
