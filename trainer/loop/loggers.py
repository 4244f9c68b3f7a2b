"""Writes step metrics to metrics.jsonl (the source of truth), the log, TensorBoard and wandb."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from omegaconf import DictConfig

from trainer.recipe import load as configs
from trainer.run import step_metrics
from trainer.run.folder import Attempt, Run
from trainer.run.step_metrics import StepMetrics

LONGEST_NAME = 100
"""Maximum number of characters of a run's name in its wandb id, which may have 128."""


class Tracker:
    """Writes each step as it ends; TensorBoard and wandb (``train.loggers``) continue at the
    resumed step.
    """

    def __init__(self, config: DictConfig, run: Run, attempt: Attempt, first: int) -> None:
        self.lines = attempt.metrics.open("a", encoding="utf-8")
        self.board = _board(run, first) if "tensorboard" in config.train.loggers else None
        self.wandb = _wandb(config, run, first) if "wandb" in config.train.loggers else None

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.lines.close()
        if self.board is not None:
            self.board.close()
        if self.wandb is not None:
            self.wandb.finish()

    def sync(self) -> None:
        """Fsyncs metrics.jsonl, so that no step in a checkpoint can lose its metrics."""
        os.fsync(self.lines.fileno())

    def log(self, metrics: StepMetrics) -> None:
        """Writes one step to all loggers."""
        self.lines.write(metrics.json())
        self.lines.flush()
        print(metrics.line(), *metrics.alarm_lines(), sep="\n", flush=True)
        values = _values(asdict(metrics))
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(name, value, metrics.step)
            for line in metrics.alarm_lines():
                self.board.add_text("train/alarm", line, metrics.step)
            self.board.flush()
        if self.wandb is not None:
            self.wandb.log(values, step=metrics.step)
            for alarm, line in zip(metrics.alarms, metrics.alarm_lines(), strict=True):
                self.wandb.alert(title=f"{alarm['kind']} at step {metrics.step}", text=line)


def _board(run: Run, first: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(run.tensorboard), purge_step=first + 1)


def _wandb(config: DictConfig, run: Run, first: int) -> Any:
    """Returns a wandb run that already has the steps up to ``first``: an offline run is a new file,
    and its upload replaces the steps of older files with the same id.
    """
    import wandb

    os.environ.setdefault("WANDB_MODE", "offline")
    opened = wandb.init(
        project="warmstart",
        name=_wandb_name(config),
        id=_wandb_id(config, run),
        resume="allow",
        dir=str(run.root),
        config=_public(config),
        settings=wandb.Settings(console="off"),
    )
    if not opened.resumed:
        for values in step_metrics.read(run):
            if values["step"] <= first:
                opened.log(_values(values), step=values["step"])
    return opened


def _public(config: DictConfig) -> dict[str, Any]:
    """Returns the configuration without the command of ``train.on_alarm``, which may hold a
    secret.
    """
    values = configs.plain(config)
    values["train"] = {k: v for k, v in values["train"].items() if k != "on_alarm"}
    return values


def _wandb_id(config: DictConfig, run: Run) -> str:
    """Returns the id that the run's folder has used before, even if it was moved since; otherwise a
    new one.
    """
    for folder in sorted(run.wandb.glob("*run-*")):
        if found := re.fullmatch(r"(?:offline-)?run-\d+_\d+-(.+)", folder.name):
            return found[1]
    place = hashlib.sha256(str(run.root.resolve()).encode()).hexdigest()
    return f"{_wandb_name(config)}-{place[:8]}"


def _wandb_name(config: DictConfig) -> str:
    """Returns the run's name in characters and a length that wandb allows."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", config.run.name)[:LONGEST_NAME]


def _values(metrics: dict[str, Any]) -> dict[str, float]:
    """Returns the numbers of a step by the names of their curves; a list counts by its length, and
    an empty one has no point.
    """
    numbers = {k: len(v) or None if isinstance(v, Sequence) else v for k, v in metrics.items()}
    return {f"train/{k}": float(v) for k, v in numbers.items() if v is not None and k != "step"}
