"""The run that a word of the command line means, or the nearest ones."""

from __future__ import annotations

from pathlib import Path

from common.errors import UserError
from common.text import nearest
from trainer.recipe import site
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
    if path.is_dir():
        raise UserError(
            f"no run at {name}: the folder has no {Run(path).config.name}; warmstart train RECIPE "
            "starts a run"
        )
    raise UserError(
        f"no run at {name} or {site.runs() / name}: warmstart train RECIPE starts one{near(name)}"
    )


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
