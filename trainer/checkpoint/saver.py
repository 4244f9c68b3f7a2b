"""Asynchronous checkpoints: copied to host memory between two steps, written to disk in the
background.
"""

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
from trainer.process.deadline import save_seconds
from trainer.process.watchdog import Watchdog
from trainer.run.folder import Run

FAILURES_IN_A_ROW = 2
"""Number of consecutive failed saves that ends the run; after the first failure the save is retried
at the next step.
"""
COPIES = 3
"""Tensors per parameter in a checkpoint: the parameter and AdamW's two moments."""


class Stager(BlockingAsyncStager):
    """Copies into host memory that is reused for every save: pinned by torch, or plain on a machine
    without a GPU.
    """

    state_dict_cache: dict[str, Any] | None

    def stage(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """Returns a copy of ``state_dict``, valid until the next call."""
        if self.state_dict_cache is None and not torch.cuda.is_available():
            self.state_dict_cache = BlockingAsyncStager().stage(state_dict)
            return self.state_dict_cache
        return super().stage(state_dict)


class Saver:
    """Saves one attempt's checkpoints, at most one in flight; every method is collective over the
    ranks.

    A failed save (no space, an I/O error) leaves nothing behind; the previous checkpoint stays the
    newest. It is retried at the next step, because file system errors can be transient. If that
    fails too, the run ends, because further steps could not be saved.
    """

    def __init__(
        self,
        run: Run,
        engine: Any,
        retention: Retention,
        watchdog: Watchdog,
        group: dist.ProcessGroup,
    ):
        """``group`` must be a gloo group that nothing else uses: the background thread communicates
        on it.
        """
        self.run, self.engine, self.retention, self.watchdog, self.group = (
            run,
            engine,
            retention,
            watchdog,
            group,
        )
        parameters = sum(
            p.numel() * p.itemsize for p in engine.module.parameters() if p.requires_grad
        )
        self.seconds = save_seconds(COPIES * parameters, dist.get_world_size())
        """Seconds of the longest save from call to commit, at least the estimate from the
        parameters' size.
        """
        self._stager = Stager(cache_staged_state_dict=True)
        self._pending: Future[Any] | None = None
        self._last: tuple[int, dict[str, Any]] = (0, {})
        self._failures = 0

    @property
    def ended(self) -> bool:
        """True once the save in flight has ended on this rank. All ranks must have seen this before
        one calls ``settle``.
        """
        return self._pending is not None and self._pending.done()

    def save(self, step: int, shared: dict[str, Any]) -> None:
        """Starts to save ``step``, after the previous save has ended; ``shared`` is added to
        state.json.

        Returns when the tensors are copied and may change. Raises StageFailed as ``settle`` does.
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
        """Waits for the save in flight; returns False if it failed.

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
        """Waits for the last save and retries it once if it failed; the engine must not have
        changed since.

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
        dist.barrier(group=self.group)  # no rank may write there before it is removed
        reasons = "; ".join(
            f"rank {rank}: {cause}" for rank, (cause, _) in sorted(error.failures.items())
        )
        text = f"the checkpoint of step {self._last[0]} could not be saved ({reasons})"
        if self._failures == FAILURES_IN_A_ROW:
            kept = f"step {self.run.checkpoints[-1]}" if self.run.checkpoints else "none"
            raise StageFailed(
                f"{text}, twice in a row: make room in {self.run.root} and run the same command "
                f"again; it resumes from the newest checkpoint ({kept})"
            )
        if dist.get_rank() == 0:
            print(f"warmstart: {text}: retrying", flush=True)
