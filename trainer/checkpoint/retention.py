"""Checkpoint retention: which checkpoints are kept, and deletion of the others."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from omegaconf import DictConfig

from common.errors import UserError
from common.files import write_lock
from trainer.run import step_metrics
from trainer.run.folder import Run


@dataclass(frozen=True)
class Retention:
    """``train.keep_last``, ``keep_every`` and ``keep_best``: a checkpoint is kept if any of them
    selects it.
    """

    last: int
    every: int | None
    best: int

    @staticmethod
    def of(settings: DictConfig) -> Retention:
        """Returns the retention of the section ``train``."""
        return Retention(settings.keep_last, settings.keep_every, settings.keep_best)

    def kept(self, steps: list[int], losses: dict[int, float]) -> set[int]:
        """Returns the steps to keep among ``steps`` (ascending); ``losses`` are validation losses
        by step, if any.
        """
        best = sorted((s for s in steps if s in losses), key=lambda s: (losses[s], -s))[: self.best]
        every = [s for s in steps if self.every and s % self.every == 0]
        return {*steps[-self.last :], *every, *best}


def surplus(run: Run, retention: Retention) -> set[int]:
    """Returns the steps whose checkpoint is not kept."""
    losses = {s["step"]: s["val_loss"] for s in step_metrics.read(run) if s["val_loss"] is not None}
    return {*run.checkpoints} - retention.kept(run.checkpoints, losses)


def prune(run: Run, retention: Retention) -> None:
    """Deletes the checkpoints that are not kept, and the remains of interrupted deletions.

    A checkpoint whose evaluation waits in Slurm's queue, or that is being exported (its lease is
    held or cannot be acquired), is kept until the next call. The caller must hold the run's lock.
    """
    for step in sorted(surplus(run, retention) - run.awaited):
        try:
            with write_lock(run.export_lease(step), wait=False):
                run.checkpoint(step).rename(run.deleted_checkpoint(step))
        except (UserError, OSError):
            continue
    for folder in run.deleted_checkpoints:
        shutil.rmtree(folder, ignore_errors=True)
