"""What lies ahead of a run, as far as its files and the planner can say: steps, seconds, weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from omegaconf import DictConfig

from data_prep.files import MANIFEST, read_json
from trainer import metrics
from trainer.doctor.findings import FATAL, NOT_HERE, OK, Finding
from trainer.planning.basis import shape_of
from trainer.planning.memory import GIB
from trainer.planning.plan import Forecast, Planner
from trainer.rundir import Run

RECENT = 50
"""Steps whose median is the measured step time."""


@dataclass(frozen=True)
class Outlook:
    """The run's future; None where it cannot be told."""

    parameters: int | None
    total: int
    """Optimizer steps of the run; 0 where the rows are not known."""
    done: int
    step_seconds: float | None
    """Measured in this run, else forecast."""
    measured: bool
    save_seconds: float | None
    """What the newest checkpoint took from call to commit."""

    @property
    def hours_left(self) -> float | None:
        """Of training, saves not counted."""
        return None if self.step_seconds is None else (self.total - self.done) * self.step_seconds / 3600


def look(config: DictConfig, run: Run) -> tuple[Outlook, list[Finding]]:
    """The outlook, with findings on whether the recipe fits its cluster."""
    planner, findings = None, []
    try:
        planner = Planner(config)
    except ValueError as e:
        findings.append(Finding(NOT_HERE, "plan", str(e)))
    own = planner.own() if planner and config.device == "cuda" else None
    if planner is not None:
        findings += _fits(config, planner, own)
    steps = metrics.read(run)
    recent = [step["seconds"] for step in steps[-RECENT:]]
    forecast = own.step.total if own else None
    saved = read_json(run.checkpoint(run.checkpoints[-1]) / MANIFEST) if run.checkpoints else {}
    return Outlook(
        parameters=planner.shape.parameters if planner else _parameters(config),
        total=planner.total_steps if planner else 0,
        done=run.checkpoints[-1] if run.checkpoints else 0,
        step_seconds=median(recent) if recent else forecast,
        measured=bool(recent),
        save_seconds=saved.get("seconds"),
    ), findings


def _parameters(config: DictConfig) -> int | None:
    """Of the model where at least its shape is known."""
    try:
        return shape_of(config).parameters
    except ValueError:
        return None


def _fits(config: DictConfig, planner: Planner, own: Forecast | None) -> Iterator[Finding]:
    if config.device == "cpu":
        yield Finding(OK, "plan", f"{planner.total_steps:,} steps on device=cpu, which is not planned for")
        return
    c = config.cluster
    cluster, mend = f"{c.nodes} x {c.gpus_per_node} {c.gpu}", f"warmstart plan {config.name}"
    if own is None:
        degree = f"train.sequence_parallel={config.train.sequence_parallel}"
        yield Finding(FATAL, "plan", f"{degree} cannot run on {cluster}", mend)
        return
    needs = f"{own.needed / GIB:.1f} of {planner.cluster.gpu.memory / GIB:.1f} GiB a GPU on {cluster}"
    if not own.fits:
        yield Finding(FATAL, "plan", f"does not fit: {needs}", mend)
        return
    hours = f"{planner.total_steps:,} steps in {planner.hours(own.step.total):,.1f} h"
    yield Finding(OK, "plan", f"forecast {needs}; {hours}")
