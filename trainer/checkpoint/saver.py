"""Checkpoints while training goes on: copied to host memory in the step's pause, written in the background."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import Future
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.staging import BlockingAsyncStager

from common.errors import StageFailed
from trainer.checkpoint import checkpoint, rng
from trainer.checkpoint.retention import Retention, prune
from trainer.process.deadline import ASSUMED_BYTES_PER_SECOND
from trainer.process.watchdog import Watchdog
from trainer.run.folder import Run

FAILURES_IN_A_ROW = 2
"""Saves that may fail, the last one not counted: one is tried again at the next step, two end the run."""
COPIES = 3
"""Of each parameter in a checkpoint: itself and AdamW's two moments."""


class Stager(BlockingAsyncStager):
    """Copies into host memory that is kept from save to save: pinned by torch, which on a CPU alone cannot be."""

    state_dict_cache: dict[str, Any] | None

    def stage(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """A copy of ``state_dict``, until the next call."""
        if self.state_dict_cache is None and not torch.cuda.is_available():
            self.state_dict_cache = BlockingAsyncStager().stage(state_dict)
            return self.state_dict_cache
        return super().stage(state_dict)


class Saver:
    """Saves of one attempt, at most one in flight; every method is collective over the ranks.

    A save that fails (no space, an I/O error) leaves nothing behind; the checkpoint before stays the newest.
    It is tried again at the next step, since file systems have bad moments; when that fails too the run ends,
    rather than computing what cannot be kept.
    """

    def __init__(self, run: Run, engine: Any, retention: Retention, watchdog: Watchdog, group: dist.ProcessGroup):
        """``group`` must be gloo's, and used by nobody else: the background thread speaks on it."""
        self.run, self.engine, self.retention, self.watchdog, self.group = run, engine, retention, watchdog, group
        parameters = sum(p.numel() * p.itemsize for p in engine.module.parameters() if p.requires_grad)
        self.seconds = COPIES * parameters / dist.get_world_size() / ASSUMED_BYTES_PER_SECOND
        """What the longest save took, from the call to the commit."""
        self._stager = Stager(cache_staged_state_dict=True)
        self._pending: Future[Any] | None = None
        self._last: tuple[int, dict[str, Any]] = (0, {})
        self._failures = 0

    @property
    def ended(self) -> bool:
        """Whether this rank knows that the save in flight has ended; the ranks must agree before one settles it."""
        return self._pending is not None and self._pending.done()

    def save(self, step: int, shared: dict[str, Any]) -> None:
        """Begins to save ``step`` once the save before has ended; ``shared`` joins state.json.

        Returns as soon as the tensors may change. Raises StageFailed as ``settle`` does.
        """
        self.settle()
        self._last = step, shared
        tensors, numbers = checkpoint.state(self.engine)
        shared = {
            "step": step,
            "scheduler": self.engine.lr_scheduler.state_dict(),
            "optimizer": numbers,
            "ranks": dist.get_world_size(),
            **shared,
        }
        files = checkpoint.split(tensors, dist.get_world_size())
        writer = checkpoint.Writer(self.run, step, files, shared, rng.capture())
        begin = time.monotonic()
        self._pending = dcp.async_save(
            tensors, storage_writer=writer, process_group=self.group, async_stager=self._stager
        )
        assert isinstance(self._pending, Future)
        self._pending.add_done_callback(lambda _: self._took(time.monotonic() - begin))

    def settle(self) -> bool:
        """Waits for the save in flight; False when it failed.

        Raises StageFailed at the second failure in a row.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return True
        self.watchdog.alive()
        try:
            pending.result()
        except CheckpointException as e:
            self._fail(e)
            return False
        finally:
            self.watchdog.alive()
        self._failures = 0
        if dist.get_rank() == 0:
            prune(self.run, self.retention)
        return True

    def finish(self) -> None:
        """Waits for the last save, which is tried once more when it fails; the engine must be as it was saved.

        Raises StageFailed as ``settle`` does.
        """
        while not self.settle():
            self.save(*self._last)

    def _took(self, seconds: float) -> None:
        self.seconds = max(self.seconds, seconds)

    def _fail(self, error: CheckpointException) -> None:
        self._failures += 1
        if dist.get_rank() == 0:
            shutil.rmtree(self.run.partial_checkpoint(self._last[0]), ignore_errors=True)
        dist.barrier(group=self.group)  # nobody writes there again before it is gone
        reasons = "; ".join(f"rank {rank}: {cause}" for rank, (cause, _) in sorted(error.failures.items()))
        text = f"the checkpoint of step {self._last[0]} could not be saved ({reasons})"
        if self._failures == FAILURES_IN_A_ROW:
            kept = f"step {self.run.checkpoints[-1]}" if self.run.checkpoints else "none"
            raise StageFailed(
                f"{text}, twice in a row: make room in {self.run.root} and run the same command again; "
                f"it goes on from the newest checkpoint ({kept})"
            )
        if dist.get_rank() == 0:
            print(f"warmstart: {text}: trying again", flush=True)
