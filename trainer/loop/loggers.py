"""Writes step metrics to metrics.jsonl (the source of truth), the log, TensorBoard and wandb."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from trainer.recipe import load as configs
from trainer.run.folder import Attempt, Run
from trainer.run.step_metrics import StepMetrics


class Tracker:
    """Writes each step as it ends; TensorBoard and wandb (``train.loggers``) continue at the
    resumed step.
    """

    def __init__(self, config: DictConfig, run: Run, attempt: Attempt, first: int) -> None:
        self.lines = attempt.metrics.open("a", encoding="utf-8")
        self.board = _board(run, first) if "tensorboard" in config.train.loggers else None
        self.wandb = _wandb(config, run.root) if "wandb" in config.train.loggers else None

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.lines.close()
        if self.board is not None:
            self.board.close()
        if self.wandb is not None:
            self.wandb.finish()

    def sync(self) -> None:
        """Fsyncs metrics.jsonl, so that a checkpoint never has steps whose metrics are lost."""
        os.fsync(self.lines.fileno())

    def log(self, metrics: StepMetrics) -> None:
        """Writes one step to all loggers."""
        self.lines.write(metrics.json())
        self.lines.flush()
        print(metrics.line(), flush=True)
        values = {
            f"train/{k}": float(v)
            for k, v in asdict(metrics).items()
            if v is not None and k != "step"
        }
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(name, value, metrics.step)
            self.board.flush()
        if self.wandb is not None:
            self.wandb.log(values, step=metrics.step)


def _board(run: Run, first: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(run.tensorboard), purge_step=first + 1)


def _wandb(config: DictConfig, root: Path) -> Any:
    import wandb

    os.environ.setdefault("WANDB_MODE", "offline")
    return wandb.init(
        project="warmstart",
        name=config.run.name,
        id=f"{config.run.name}-{hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:8]}",
        resume="allow",
        dir=str(root),
        config=configs.plain(config),
        settings=wandb.Settings(console="off"),
    )
