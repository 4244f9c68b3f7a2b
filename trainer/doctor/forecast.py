"""Forecasts the rest of a run from its files and the planner: steps, seconds, model shape."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

from omegaconf import DictConfig

from common.errors import UserError
from common.files import MANIFEST, read_json
from trainer.batching.flops import Shape
from trainer.doctor.findings import FATAL, NOT_HERE, OK, WARNING, Finding
from trainer.doctor.size import planning
from trainer.planning.cluster import degrees
from trainer.planning.cost import cost, no_room
from trainer.planning.memory import GIB
from trainer.planning.planner import Forecast, Planner
from trainer.planning.workload import Lengths, lengths_of, shape_of, total_steps
from trainer.run import step_metrics
from trainer.run.folder import Run

T = TypeVar("T", Shape, Lengths)
RECENT = 50
"""Number of latest steps whose median is the measured step time."""


@dataclass(frozen=True)
class Outlook:
    """The forecast of a run; None where a value is not known."""

    shape: Shape | None
    total: int
    """Optimizer steps of the run; 0 if the rows are not known."""
    done: int
    step_seconds: float | None
    """Step time: measured in this run, otherwise forecast."""
    measured: bool
    save_seconds: float | None
    """Seconds of the newest checkpoint's save, from call to commit."""

    @property
    def hours_left(self) -> float | None:
        """Remaining hours of training, without saves."""
        return (
            None
            if self.step_seconds is None
            else (self.total - self.done) * self.step_seconds / 3600
        )


def look(config: DictConfig, run: Run) -> tuple[Outlook, list[Finding]]:
    """Returns the outlook, and findings on whether the recipe fits its cluster."""
    planner, findings = None, []
    try:
        planner = Planner(config)
    except UserError as e:
        findings.append(Finding(NOT_HERE, "plan", str(e)))
    own = planner.own() if planner and config.device == "cuda" else None
    if planner is not None:
        findings += _fits(config, planner, own)
    steps = step_metrics.read(run)
    recent = [step["seconds"] for step in steps[-RECENT:]]
    forecast = own.step.total if own else None
    lengths = planner.lengths if planner else _known(lengths_of, config)
    saved = read_json(run.checkpoint(run.checkpoints[-1]) / MANIFEST) if run.checkpoints else {}
    return Outlook(
        shape=planner.shape if planner else _known(shape_of, config),
        total=total_steps(config, len(lengths.tokens)) if lengths else 0,
        done=run.checkpoints[-1] if run.checkpoints else 0,
        step_seconds=median(recent) if recent else forecast,
        measured=bool(recent),
        save_seconds=saved.get("seconds"),
    ), findings


def _known(fact: Callable[[DictConfig], T], config: DictConfig) -> T | None:
    try:
        return fact(config)
    except UserError:
        return None


def _fits(config: DictConfig, planner: Planner, own: Forecast | None) -> Iterator[Finding]:
    if config.device == "cpu":
        yield Finding(OK, "plan", f"{planner.total_steps:,} steps; device=cpu has no forecast")
        return
    c = config.cluster
    cluster, fix = f"{c.nodes} x {c.gpus_per_node} {c.gpu}", planning(config)
    if own is None:
        if config.train.sequence_parallel in degrees(planner.shape, planner.cluster):
            return  # some ranks have no rows: a finding on the size
        degree = f"train.sequence_parallel={config.train.sequence_parallel}"
        yield Finding(FATAL, "plan", f"{degree} cannot run on {cluster}", fix)
        return
    needs = (
        f"{own.needed / GIB:.1f} of {planner.cluster.gpu.memory / GIB:.1f} GiB per GPU on {cluster}"
    )
    if not own.fits:
        yield Finding(FATAL, "plan", f"does not fit: {needs}", fix)
        return
    hours = f"{planner.total_steps:,} steps in {planner.hours(own.step.total):,.1f} h"
    yield Finding(OK, "plan", f"forecast {needs}; {hours}")
    if fault := no_room(planner):
        yield Finding(WARNING, "evaluation", *fault)
        return
    try:
        yield Finding(OK, "cost", cost(planner, own).line())
    except UserError as e:
        yield Finding(NOT_HERE, "cost", str(e))
