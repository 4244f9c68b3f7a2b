"""Finds the run that a word of the command line means, or the nearest ones."""

from __future__ import annotations

from pathlib import Path

from common.errors import UserError
from common.text import nearest
from trainer.recipe import files, site
from trainer.recipe import load as configs
from trainer.run import models
from trainer.run.folder import Run


def find(name: str) -> Run:
    """Returns the run in the folder ``name`` or of that name. Raises UserError when there is none,
    naming the nearest.
    """
    run = Run.find(name)
    if run is not None:
        return run
    path = Path(name)
    if is_recipe(name):
        raise UserError(of_recipe(name))
    if path.is_dir():
        raise UserError(
            f"no run at {name}: the folder has no {Run(path).config.name}; warmstart train RECIPE "
            "starts a run"
        )
    raise UserError(
        f"no run at {name} or {site.runs() / name}: warmstart train RECIPE starts one{near(name)}"
    )


def is_recipe(word: str) -> bool:
    """Returns whether a word is the path of a recipe's file."""
    return word.endswith(files.SUFFIXES) and Path(word).is_file()


def of_recipe(path: str) -> str:
    """Returns the message that names the run of a recipe's file, which stands where a run belongs.
    Raises UserError when the recipe is broken.
    """
    run = Run.of(configs.load(path))
    there = "" if run.config.exists() else f", which warmstart train {path} starts"
    return f"{path} is a recipe: give its run, {run.root}{there}"


def near(name: str) -> str:
    """Returns ``; did you mean RUN?`` for the run with the nearest name or path, and for a path in
    a run which exports it has; an empty text if there is none.
    """
    if inside := next((run for run in map(Run, Path(name).parents) if run.config.exists()), None):
        there = ", ".join(label.word for label in models.exported(inside)) or "none"
        return f" (exports of {inside.root}: {there})"
    roots = dict.fromkeys((site.runs(), Path("runs")))
    found = [run.root for root in roots for run in map(Run, root.glob("*")) if run.config.exists()]
    return nearest(name, [str(root) if "/" in name else root.name for root in found])
