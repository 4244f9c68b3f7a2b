"""Stages that have their own verb and are also part of ``warmstart run``. Each prints what
it did.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common import terminal
from common.errors import UserError
from common.exit_codes import DONE, STOPPED
from common.files import MANIFEST, file_errors, read_json
from common.progress import waiting

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from trainer.run.folder import Run
    from trainer.run.model_label import ModelLabel


def build(config: DictConfig) -> None:
    """Builds the recipe's dataset unless it exists."""
    with waiting("building the dataset"):
        from data_prep.settings import other_rules
        from warmstart import dataset

        folder, rows, built = dataset.build(config)
    counts = ", ".join(f"{count:,} {split} rows" for split, count in rows.items())
    say(f"dataset {folder}: {counts}{'' if built else ' (already built)'}")
    if built and (told := dropped(folder)):
        say(told)
    if told := other_rules(folder):
        say(told)


def dropped(folder: Path) -> str:
    """Returns the number of source records that the dataset dropped, by reason; empty if it dropped
    none.
    """
    from data_prep.output.folder import REPORT

    funnel = read_json(folder / MANIFEST)["funnel"]
    drops = {
        step.removeprefix("dropped: "): count
        for step, count in funnel.items()
        if step.startswith("dropped: ") and count
    }
    if not drops:
        return ""
    head = (
        f"{sum(drops.values()):,} of {funnel['source records']:,} source records dropped "
        f"({folder / REPORT} shows some of each kind)"
    )
    return "\n".join([head, *(f"{count:>9,}  {reason}" for reason, count in drops.items())])


def forecast(config: DictConfig, run: Run | None, rl: bool) -> tuple[str, bool]:
    """Returns (the forecast of training, or with ``rl`` of GRPO from the run or recipe, whether
    anything fits).
    """
    if rl:
        from eval.rl.forecast import page as rl_page

        return rl_page(config, run)
    from trainer.planning.page import page
    from trainer.planning.planner import Planner

    return page(Planner(config))


def train(run: Run, config: DictConfig, identity: str) -> int:
    """Trains on the dataset with this identity; returns the exit code."""
    from trainer.loop.launcher import train as launch
    from trainer.run.status import is_trained

    if is_trained(run):
        say("training has finished already")
        return DONE
    code = launch(run, config, identity)
    if code == STOPPED:
        say("stopped on purpose: run the same command again to continue")
    return code


def export(
    run: Run, config: DictConfig, label: ModelLabel | None, overrides: Sequence[str] = ()
) -> Path:
    """Exports a step of SFT or RL, by default the newest of SFT, with its card; returns the folder.
    For an average, which exists already, only the card is written. Raises UserError when there is
    no such checkpoint or average.
    """
    from eval.card import card
    from trainer.export import average_export, rl_export
    from trainer.export.export import export as stage

    if label is None and not run.checkpoints:
        raise UserError(f"{run.root} has no complete checkpoint yet: warmstart train {config.name}")
    step = run.checkpoints[-1] if label is None else label.step
    with waiting("exporting"):
        if label is not None and label.rl is not None:
            folder = rl_export.export(run, config, label)
        elif label is not None and label.average is not None:
            folder = average_export.existing(run, config, label)
        elif step is None:
            raise UserError(
                "the base model is not a checkpoint of the run: give the number of a step"
            )
        else:
            folder = stage(run, config, step)
        card.write(run, folder, overrides=overrides)
    say(f"exported {folder}")
    return folder


def average(
    run: Run,
    config: DictConfig,
    step: str | None,
    members: str | None,
    toward: str | None,
    name: str | None,
    overrides: Sequence[str],
) -> Path:
    """Exports an average of ``members``, or ``step`` (by default the newest) moved towards the base
    model, with its card; returns the folder. Raises UserError when the run does not have these
    steps, or when they do not form an average.
    """
    from eval.card import card
    from trainer.export import average_export
    from trainer.export.average_recipe import AverageRecipe, label_of
    from trainer.run.model_label import ModelLabel

    if members is None and toward is None:
        raise UserError(
            f"--name {name} names an average: add --average STEPS or --toward base=SHARE"
        )
    if members is not None and step is not None:
        raise UserError(f"--average {members}: give {step} in that list, or not at all")
    there = average_export.steps_there(run)
    if not there:
        raise UserError(f"{run.root} has no complete checkpoint yet: warmstart train {config.name}")
    moved = ModelLabel(there[-1]) if step is None else ModelLabel.parse(step)
    if moved.step is None:
        raise UserError(f"--toward {toward}: only a step of SFT can be moved, not {moved.word}")
    recipe = AverageRecipe.parse(members or moved.word, toward, there)
    with waiting("averaging"):
        folder = average_export.export(run, config, recipe, label_of(recipe, name))
        card.write(run, folder, overrides=overrides)
    say(f"exported {folder}")
    return folder


def report(run: Run, config: DictConfig, partial: bool = False) -> tuple[Path, Path]:
    """Writes the report and its page, and rewrites the exports' cards; returns (report, page).
    Raises UserError as these do.
    """
    from eval.card import card
    from eval.report.html.write import write as write_page
    from eval.report.report import write

    with waiting("writing the report"), file_errors(run.root):
        written = write(run, config, partial), write_page(run, config, partial)
        card.refresh(run)
    return written


def score(evaluation: Path) -> str:
    """Returns the accuracy of the evaluation in a folder, in one line."""
    from eval.results import evaluation as evaluations
    from eval.results import scores

    return scores.score(evaluations.read(evaluation))


def show_evaluation(run: Run, folder: Path) -> None:
    """Prints an evaluation's accuracies, its folder, and the commands to run next."""
    from eval.overview import next_commands
    from eval.results import evaluation as evaluations
    from eval.results import scores

    evaluation = evaluations.read(folder)
    terminal.show(scores.table(evaluation))
    print(f"\n{folder}\n\nNext:")
    commands = next_commands.after(run, evaluation)
    width = max(len(command) for command, _ in commands)
    for command, what in commands:
        print(f"  {command:<{width}}  # {what}")


def rl_step(run: Run, config: DictConfig) -> int:
    """Returns the step of SFT that RL starts from if none is given, and prints why: the step that
    ``warmstart choose`` recommends, or the newest export if fewer than two candidates are
    evaluated.

    Raises UserError when the run has no export.
    """
    from eval.choice import candidates
    from eval.choice.page import start
    from eval.choice.rule import choose

    if not run.exports:
        raise UserError(f"{run.root} has no export yet: warmstart export {run.root}")
    found = candidates.find(run, config).candidates
    if len(found) > 1:
        choice = choose(found)
        if choice.start is not None and choice.start.label.step is not None:
            say(start(choice))
            return choice.start.label.step
    say(
        f"RL starts from step {run.exports[-1]}, the newest export: warmstart choose {run.root} "
        "recommends a step once two are evaluated under the same settings"
    )
    return run.exports[-1]


def say(text: str) -> None:
    """Prints a line of progress."""
    print(f"== {text}", flush=True)
