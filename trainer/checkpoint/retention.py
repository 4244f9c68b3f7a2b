"""Which checkpoints stay."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from omegaconf import DictConfig

from common.errors import UserError
from common.files import writer
from trainer.run import step_metrics
from trainer.run.folder import Run


@dataclass(frozen=True)
class Retention:
    """``train.keep_last``, ``train.keep_every`` and ``train.keep_best``: a checkpoint stays if one of them says so."""

    last: int
    every: int | None
    best: int

    @staticmethod
    def of(settings: DictConfig) -> Retention:
        """From the section ``train``."""
        return Retention(settings.keep_last, settings.keep_every, settings.keep_best)

    def kept(self, steps: list[int], losses: dict[int, float]) -> set[int]:
        """Of ``steps``, ascending, those that stay; ``losses`` are validation losses by step, where there are any."""
        best = sorted((s for s in steps if s in losses), key=lambda s: (losses[s], -s))[: self.best]
        every = [s for s in steps if self.every and s % self.every == 0]
        return {*steps[-self.last :], *every, *best}


def prune(run: Run, retention: Retention) -> None:
    """Deletes the checkpoints that do not stay, and what is left of earlier deletions.

    One whose evaluation waits in Slurm's queue, or that is being exported (its lease is held or cannot be had), is
    left for the next time. The caller is the run's one writer.
    """
    losses = {s["step"]: s["val_loss"] for s in step_metrics.read(run) if s["val_loss"] is not None}
    for step in sorted({*run.checkpoints} - retention.kept(run.checkpoints, losses) - run.awaited):
        try:
            with writer(run.export_lease(step), wait=False):
                run.checkpoint(step).rename(run.deleted_checkpoint(step))
        except (UserError, OSError):
            continue
    for folder in run.deleted_checkpoints:
        shutil.rmtree(folder, ignore_errors=True)
