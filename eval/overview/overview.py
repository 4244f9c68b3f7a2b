"""An overview of all runs in some folders: owner, state, accuracy, device-hours."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import MANIFEST, file_errors
from common.lease import is_locked
from common.text import markdown_table
from eval.evaluate import suite
from eval.results import base_vs_sft, scores
from eval.results import evaluation as evaluations
from trainer.recipe import site
from trainer.run import device_hours, frozen_config, step_metrics
from trainer.run.device_hours import Cost
from trainer.run.folder import Run, is_complete, lock_of

DATED = "%Y-%m-%d %H:%M"


@dataclass(frozen=True)
class Known:
    """One run's line of the overview."""

    run: Run
    owner: str
    changed: float
    """Unix time of the newest change in its folder, of an attempt or of an evaluation."""
    recipe: str
    state: str
    progress: str
    """Steps done, of the total."""
    accuracy: str
    """Suite, newest evaluated model, and its pass@1 with interval."""
    hours: str

    def json(self) -> dict[str, Any]:
        """Returns the values for scripts."""
        return asdict(self) | {"run": str(self.run.root)}


def find(roots: Sequence[Path]) -> list[Known]:
    """Returns the runs in these folders, newest first, by default those in the site's folder of
    runs; a root may be a run itself. A damaged run says so in its state.

    Raises UserError when a folder does not exist.
    """
    folders: dict[Path, None] = {}
    for root in roots or [site.runs()]:
        if not root.is_dir():
            fix = "give folders of runs" if roots else "warmstart run tiny makes one"
            raise UserError(f"{root} is not a folder of runs: {fix}")
        with file_errors(root):
            inside = [root, *sorted(root.iterdir())]
        folders |= dict.fromkeys(f.absolute() for f in inside if Run(f).config.exists())
    return sorted((_known(Run(f)) for f in folders), key=lambda known: -known.changed)


def table(found: Sequence[Known]) -> str:
    """Returns a Markdown table of the runs."""
    if not found:
        return "No run yet: warmstart run tiny makes one."
    made = markdown_table(lines(found), "lllllll")
    return f"{made}\n\n{scores.brackets(made)}."


def lines(found: Sequence[Known]) -> list[list[str]]:
    """Returns the table's titles, then a line per run."""
    many = len({known.run.root.parent for known in found}) > 1
    titles = ["run", "owner", "changed", "state", "steps", "accuracy", "cost"]
    return [titles] + [
        [
            os.path.relpath(known.run.root) if many else known.run.name,
            known.owner,
            dated(known.changed),
            known.state,
            known.progress,
            known.accuracy,
            known.hours,
        ]
        for known in found
    ]


def dated(seconds: float) -> str:
    """Returns a Unix time as date and minute, in this machine's time zone."""
    return time.strftime(DATED, time.localtime(seconds))


def _known(run: Run) -> Known:
    facts = dict.fromkeys(("recipe", "progress", "accuracy", "hours"), "")
    try:
        with file_errors(run.root):
            facts["recipe"] = str(frozen_config.read(run).name)
            facts["state"] = _state(run)
            if steps := step_metrics.read(run):
                facts["progress"] = f"{steps[-1]['step']:,} of {steps[-1]['total']:,}"
            facts["accuracy"] = _accuracy(run)
            facts["hours"] = _hours(run)
    except UserError as e:
        facts["state"] = f"damaged: {e}"
    return Known(run, _owner(run.root), _changed(run), **facts)


def _owner(folder: Path) -> str:
    try:
        return folder.owner()
    except KeyError:  # a user of another machine
        return str(folder.stat().st_uid)


def _changed(run: Run) -> float:
    files = [run.config, *(p for a in run.attempts for p in (a.metrics, a.outcome))]
    files += [p for folder in run.evaluations for p in (folder, folder / MANIFEST)]
    return max(path.stat().st_mtime for path in files if path.exists())


def _state(run: Run) -> str:
    """Returns what a run is doing, or how its last attempt ended."""
    if is_locked(run.lock):
        return "training"
    if any(is_locked(lock_of(folder)) for folder in run.evaluations):
        return "evaluating"
    if run.attempts:
        return run.attempts[-1].status or "cut off"
    return "evaluated" if any(map(is_complete, run.evaluations)) else "not trained"


def _accuracy(run: Run) -> str:
    if not evaluations.groups(run, partial=False):
        return ""
    known = base_vs_sft.newest(run).known
    return f"{suite(list(known.settings.benchmarks))}, {known.label}: {scores.score(known)}"


def _hours(run: Run) -> str:
    """Returns the device-hours of all stages, by unit."""
    used: dict[str, float] = {}
    for cost in device_hours.costs(run, filter(is_complete, run.evaluations)):
        used[cost.unit] = used.get(cost.unit, 0) + cost.hours
    sums = (Cost("", hours, unit, "") for unit, hours in used.items() if hours)
    return ", ".join(map(device_hours.shown, sums))
