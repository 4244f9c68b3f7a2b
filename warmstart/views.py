"""The read-only verbs: they list recipes and runs, show a run or a row, and compare evaluations. A
function's docstring is its verb's help.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from common import terminal
from common.exit_codes import DONE
from common.progress import waiting
from warmstart.chosen import run_of


def recipes() -> int:
    """list the recipes: what each one is for, and what it needs"""
    from common.text import markdown_table
    from trainer.recipe.catalogue import catalogue

    lines = [(found.name, found.purpose, found.needs) for found in catalogue()]
    terminal.show(markdown_table([("recipe", "what it is", "what it needs"), *lines], "lll"))
    return DONE


def runs(roots: list[str], page: str | None, as_json: bool) -> int:
    """list all runs of some folders, by default the site's: owner, state, accuracy, device-hours"""
    from eval.overview import overview
    from eval.overview.runs_page import write

    with waiting("reading the runs"):
        found = overview.find([Path(root) for root in roots])
    if as_json:
        print(json.dumps([run.json() for run in found]))
    else:
        terminal.show(overview.table(found))
    if page is not None:
        print(f"page: {write(Path(page), found)}")
    return DONE


def status(run: str, as_json: bool) -> int:
    """show the progress of a run, and how good its evaluated checkpoints are"""
    from eval.results import scores
    from trainer.run import status as stage

    found = run_of(run)[0]
    values, measured = stage.status(found), scores.of_run(found)
    if as_json:
        print(json.dumps(values | {"scores": measured}))
        return DONE
    texts = {name: of.get("text") or f"damaged: {of['damaged']}" for name, of in measured.items()}
    terminal.show_fields(stage.fields(values, texts))
    if texts:
        print(f"({scores.brackets(''.join(texts.values()))})")
    return DONE


def inspect(recipe: str, overrides: list[str], row: int, split: str) -> int:
    """show a row's tokens and loss mask"""
    from data_prep.output.folder import dataset_folder
    from data_prep.output.show_row import show
    from trainer.recipe.typed_words import called
    from trainer.run.trained_from import dataset_identity
    from warmstart.chosen import config_of

    config = config_of(recipe, overrides)
    with called(recipe, overrides, config.name):
        dataset_identity(config)
    print(show(dataset_folder(config), row, split, colour=sys.stdout.isatty()))
    return DONE


def compare(targets: list[str], partial: bool, across_prompts: bool) -> int:
    """compare evaluations: tables, paired significance tests, published figures"""
    from eval.results.compare import compare as stage

    with waiting("comparing"):
        text = stage(targets, partial, across_prompts)
    terminal.show(text)
    return DONE


def choose(run: str) -> int:
    """compare a run's evaluated checkpoints and averages, and recommend one to start RL from;
    RUN,RUN,...: compare them over runs that differ only in train.seed
    """
    from eval.choice import page, replicated_page
    from eval.results import group_targets

    names = group_targets.parts(run)
    with waiting("comparing the candidates"):
        if len(names) > 1:
            text = replicated_page.text([run_of(name)[0] for name in names])
        else:
            text = page.text(*run_of(run))
    terminal.show(text)
    return DONE
