"""The verbs of the command; a function's docstring is its verb's help. A stage is imported when
its verb is called.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from common import terminal
from common.errors import UserError
from common.exit_codes import DONE, FAILED, PREFLIGHT, STOPPED
from common.files import file_errors
from common.progress import waiting
from warmstart import stages
from warmstart.chosen import config_of, run_of


def data(recipe: str, overrides: list[str], repo: str | None) -> int:
    """build the dataset"""
    from trainer.export.hub_upload import check
    from trainer.preflight import checks

    config = config_of(recipe, overrides)
    if repo is not None:
        check(repo)
    checks.before_data(config)
    stages.build(config)
    if repo is not None:
        from eval.card.publish_dataset import publish

        stages.say(f"pushed to {publish(config, repo)}")
    return DONE


def train(recipe: str, overrides: list[str]) -> int:
    """start or resume training"""
    from trainer.preflight import checks
    from trainer.recipe.typed_words import called
    from trainer.run import frozen_config
    from trainer.run.trained_from import dataset_identity

    config = config_of(recipe, overrides)
    with called(recipe, overrides, config.name), waiting("checking what training needs"):
        checks.before_training(config)
        dataset = dataset_identity(config)
    return stages.train(frozen_config.check(config), config, dataset)


def plan(recipe: str, overrides: list[str], rl: bool) -> int:
    """forecast memory and time on the recipe's cluster, compare layouts and recommend one"""
    from trainer.recipe.typed_words import called
    from trainer.run.folder import Run

    known = Run.find(recipe) if rl else None
    run, config = run_of(recipe, overrides) if known else (None, config_of(recipe, overrides))
    with called(recipe, overrides, config.name), waiting("planning"):
        text, fits = stages.forecast(config, run, rl)
    print(text)
    return DONE if fits else FAILED


def doctor(recipe: str, overrides: list[str], as_json: bool, **asked: str | None) -> int:
    """check the environment, on the login node or in a job (srun warmstart doctor RECIPE), and
    print a fix for every problem found
    """
    import json

    from slurm.commands.command_lines import size_of
    from trainer.doctor.doctor import examine
    from trainer.doctor.findings import is_fatal, table

    options = {name.replace("_", "-"): value for name, value in asked.items() if value is not None}
    size = size_of(recipe, options) if options else None
    usual = size_of(recipe, {}) if shutil.which("sbatch") else None
    with waiting("checking"):
        found = examine(recipe, overrides, size, usual)
    if found:
        print(json.dumps([f.json() for f in found], indent=1) if as_json else table(found))
    return PREFLIGHT if is_fatal(found) else DONE


def prefetch(recipe: str, overrides: list[str]) -> int:
    """download what the recipe needs from the hub, for nodes without internet"""
    from trainer.preflight import checks
    from trainer.run.prefetch import prefetch as stage

    config = config_of(recipe, overrides)
    checks.before_prefetch(config)
    pins = " ".join(f"{key}={commit}" for key, commit in stage(config).items())
    pinned = f", and pin the versions with {pins}" if pins else ""
    stages.say(f"{recipe} no longer needs the hub: set HF_HUB_OFFLINE=1{pinned}")
    return DONE


def export(
    run: str, step: str | None, overrides: list[str], repo: str | None, **average: str | None
) -> int:
    """export a checkpoint, or an average of several, as a Hugging Face model with a model card"""
    from eval.card import card
    from trainer.export.hub_upload import check
    from trainer.export.push import push
    from trainer.run.model_label import ModelLabel
    from trainer.run.models import resolve

    found, config = run_of(run, overrides)
    if repo is not None:
        check(repo)
    if any(value is not None for value in average.values()):
        folder = stages.average(found, config, step, overrides=overrides, **average)
    else:
        label = None if step is None else resolve(found, ModelLabel.parse(step))
        folder = stages.export(found, config, label, overrides)
    if repo is not None:
        card.write(found, folder, repo, overrides)
        stages.say(f"pushed to {push(folder, repo)}")
    return DONE


def evaluate(target: str, label: str | None, overrides: list[str]) -> int:
    """evaluate a run's checkpoint, its base model, or any model: rollouts, grades, metrics"""
    from eval.card import card
    from eval.evaluate import evaluate as stage
    from trainer.run.folder import Run, is_complete
    from trainer.run.model_label import BASE, ModelLabel
    from trainer.run.models import resolve
    from warmstart import bare_model

    if Run.find(target):
        run, config = run_of(target, overrides)
        newest = ModelLabel(run.exports[-1]) if run.exports else BASE
        model = resolve(run, ModelLabel.parse(label)) if label else newest
        if model.rl is not None and not is_complete(run.export(model)):
            stages.export(run, config, model)
    else:
        model = BASE
        run, config = bare_model.start(target, label, overrides)
    folder = stage(config, run, model)
    card.refresh(run)
    stages.show_evaluation(run, folder)
    return DONE


def grade(target: str, style: str | None) -> int:
    """grade existing rollouts again, without generating"""
    from eval.evaluate import regrade
    from eval.generation import rollout_files
    from eval.grading import grade as grading

    path = Path(target)
    if not path.exists():
        raise UserError(
            f"{path} does not exist: give an evaluation folder, or a JSONL file with one "
            "{id, gold, text} per line"
        )
    if style and path.is_dir():
        raise UserError(
            f"{path} is an evaluation, whose settings say its style: leave out --style {style}"
        )
    with file_errors(path.parent):
        if path.is_dir():
            grades = regrade(path) / rollout_files.GRADES
        else:
            grades = grading.grade_file(path, style)
    print(path if path.is_dir() else grades, grading.summary(grades), sep="\n")
    return DONE


def report(run: str, partial: bool) -> int:
    """write the run's report and its exports' model cards"""
    print(*stages.report(*run_of(run), partial), sep="\n")
    return DONE


def rl(
    run: str, label: str | None, overrides: list[str], pool: str | None, problems: int | None
) -> int:
    """prepare RL with verl: problems that a checkpoint solves sometimes, a GRPO configuration and
    a script
    """
    from eval.rl.prepare import prepare
    from trainer.recipe.relocate import of_dataset
    from trainer.run.model_label import ModelLabel

    found, config = run_of(run, of_dataset(overrides))
    step = ModelLabel.parse(label).step if label else stages.rl_step(found, config)
    if step is None:
        raise UserError(f"RL starts from a step of SFT: give the number of an export, not {label}")
    made = prepare(found, config, step, overrides, Path(pool) if pool else None, problems)
    stages.say(made.counts)
    again = " (on Slurm: sbatch slurm/eval.sh with the same arguments), then this command again"
    stages.say(f"next: {made.command}{'' if made.folder else again}")
    stages.say(f"cost: {made.cost}")
    return DONE if made.folder else STOPPED


def watch(run: str, overrides: list[str], once: bool) -> int:
    """submit the evaluations of a run's base model and checkpoints to Slurm, until training has
    finished
    """
    from slurm.queue.submit_evaluations import watch as stage

    return DONE if stage(run_of(run)[0], overrides, once) else FAILED


def line(recipe: str, overrides: list[str]) -> int:
    """run every stage on this machine: data, base evaluation, training, export, evaluation,
    report
    """
    from eval.evaluate import evaluate as stage
    from eval.report.report import headline
    from eval.results.scores import brackets
    from trainer.preflight import checks
    from trainer.process.process_group import under_slurm
    from trainer.recipe.typed_words import called
    from trainer.run import frozen_config
    from trainer.run.base_model import materialise
    from trainer.run.model_label import BASE, ModelLabel
    from trainer.run.trained_from import dataset_identity

    if under_slurm(os.environ):
        raise UserError(
            "warmstart run works in one task, but this step has several: sbatch slurm/sft_4b.sh"
        )
    config = config_of(recipe, overrides)
    with called(recipe, overrides, config.name), waiting("checking what the stages need"):
        checks.before_line(config)
    stages.build(config)
    run = frozen_config.start(config)
    with waiting("making the base model"):
        materialise(config)
    stages.say("evaluating the base model")
    stages.say(stages.score(stage(config, run, BASE)))
    stages.say("training")
    code = stages.train(run, config, dataset_identity(config))
    if code != DONE:
        return code
    step = run.checkpoints[-1]
    stages.export(run, config, ModelLabel(step))
    stages.say(f"evaluating step {step}")
    stage(config, run, ModelLabel(step))
    path, page = stages.report(run, config)
    shown = headline(run, config)
    terminal.show(f"{shown}\n\n{brackets(shown)}.")
    print(f"\nreport: {path}\nfor a browser: {page}")
    return DONE
