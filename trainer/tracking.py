"""Views of the step metrics for people who look elsewhere: TensorBoard and wandb. The JSON lines stay the truth."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from trainer import config as configs
from trainer.metrics import StepMetrics


class Tracker:
    """Writes each step to the loggers of ``train.loggers``; a resumed run goes on in the same curves."""

    def __init__(self, config: DictConfig, root: Path, first_step: int) -> None:
        self.board = _board(root, first_step) if "tensorboard" in config.train.loggers else None
        self.wandb = _wandb(config, root) if "wandb" in config.train.loggers else None

    def log(self, metrics: StepMetrics) -> None:
        values = {f"train/{k}": float(v) for k, v in asdict(metrics).items() if v is not None and k != "step"}
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(name, value, metrics.step)
            self.board.flush()
        if self.wandb is not None:
            self.wandb.log(values, step=metrics.step)

    def close(self) -> None:
        if self.board is not None:
            self.board.close()
        if self.wandb is not None:
            self.wandb.finish()


def _board(root: Path, first_step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(root / "tensorboard"), purge_step=first_step)


def _wandb(config: DictConfig, root: Path) -> Any:
    import wandb

    os.environ.setdefault("WANDB_MODE", "offline")
    return wandb.init(
        project="warmstart",
        name=config.run.name,
        id=config.run.name,
        resume="allow",
        dir=str(root),
        config=configs.plain(config),
        settings=wandb.Settings(console="off"),
    )
