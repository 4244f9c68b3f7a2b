"""Runs one optimizer step or validation pass of a rank: chooses, plans and reads rows in a thread,
ahead of their use, and feeds the engine.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from omegaconf import DictConfig
from verl.utils.device import get_device_id, get_torch_device

from trainer.batching import sampler
from trainer.batching.balance import StepPlan, plan_step
from trainer.batching.dataset import TokenDataset
from trainer.batching.flops import Shape
from trainer.batching.packing import Packed
from trainer.batching.read_ahead import read_ahead
from trainer.engine.pending import HostCopy, PendingStep
from trainer.engine.stopwatch import Timestamp
from trainer.process import process_group
from trainer.run.step_metrics import TokenMeans

if TYPE_CHECKING:
    from trainer.engine.fsdp import Engine


@dataclass(frozen=True)
class Batch:
    """What a rank trains in one step."""

    step: int
    """Counts from 0."""
    rows: list[int]
    """Rows of the global batch, by index."""
    plan: StepPlan
    packed: list[Packed]
    """This rank's micro-batches, on the host."""


@dataclass(frozen=True)
class StepResult:
    """A finished step on this rank."""

    rows: list[int]
    """Rows of the global batch, by index."""
    means: TokenMeans
    """This rank's shares: summed over ranks, the means over the batch's supervised tokens."""
    grad_norm: float
    """Gradient norm before clipping."""
    lr: float
    tokens: int
    """Tokens of the global batch."""
    flops: float
    """Training FLOPs of the global batch."""
    balance: float
    """See ``StepPlan.efficiency``."""
    fill: float
    """Tokens of the step over the token budget of its micro-batches."""
    data_seconds: float
    """Seconds that the step waited for this rank's rows."""
    seconds: float
    """Seconds of the step on this rank, from the wait for its rows to the end of its update."""
    head_seconds: float = 0.0
    """Seconds in this rank's output head, where it waits for no other rank."""
    head_tokens: int = 0
    """Supervised tokens of this rank."""


@dataclass(frozen=True)
class RowLoss:
    """The loss of one row in a step."""

    row: int
    """Its index in the training file."""
    loss: float
    """Mean over its supervised tokens, in nats; may not be finite."""
    ranks: tuple[int, ...]
    """Ranks that had tokens of the row."""
    host: str
    """Node of the first of these ranks."""


@dataclass(frozen=True)
class LaunchedStep:
    """A step of this rank, which a GPU may still be running."""

    batch: Batch
    group: int
    """This rank's data-parallel group."""
    fill: float
    """As in ``StepResult``; so are the learning rate and the wait for rows."""
    lr: float
    data_seconds: float
    begin: Timestamp
    """The step's start, or the end of the previous step if that was still running."""
    pending: PendingStep

    def result(self) -> StepResult:
        """Waits for the step's end and returns its result."""
        figures, plan = self.pending.read(), self.batch.plan
        return StepResult(
            rows=self.batch.rows,
            means=figures.means,
            grad_norm=figures.grad_norm,
            lr=self.lr,
            tokens=plan.tokens,
            flops=plan.flops,
            balance=plan.efficiency,
            fill=self.fill,
            data_seconds=self.data_seconds,
            seconds=self.pending.end.since(self.begin),
            head_seconds=figures.head_seconds,
            head_tokens=self.pending.head_tokens,
        )

    def row_losses(self) -> list[RowLoss]:
        """Returns the losses of the step's rows, before its update, highest first; those that are
        not finite lead. Collective, and waits for the device.
        """
        mine: dict[int, tuple[float, float]] = {}
        micro_batches = self.batch.plan.micro_batches[self.group]
        for rows, found in zip(micro_batches, self.pending.row_losses, strict=True):
            # What is left of the documents is padding.
            documents = zip(rows, found.T.tolist(), strict=False)
            mine |= {row: (total, count) for row, (total, count) in documents if count}
        shares = process_group.everyone((os.uname().nodename, mine))
        told = []
        for row in {row for _, losses in shares for row in losses}:
            ranks = tuple(rank for rank, (_, losses) in enumerate(shares) if row in losses)
            totals, counts = zip(*(shares[rank][1][row] for rank in ranks), strict=True)
            told.append(RowLoss(row, sum(totals) / sum(counts), ranks, shares[ranks[0]][0]))
        return sorted(told, key=lambda r: (math.isfinite(r.loss), -r.loss, r.row))


class Stepper:
    """Runs steps of ``rows`` with ``settings`` (the section ``train``) on an engine; collective
    over the ranks. Use it as a context manager, which ends its thread.
    """

    def __init__(
        self, engine: Engine, rows: TokenDataset, settings: DictConfig, steps: Iterable[int]
    ) -> None:
        """``steps`` are those that will be trained, in their order (0-based)."""
        self.engine, self.rows, self.settings = engine, rows, settings
        self.shape = replace(
            Shape.of(engine.module.config.to_dict()), lora_rank=settings.lora_rank or 0
        )
        self.groups, self.group = engine.get_data_parallel_size(), engine.get_data_parallel_rank()
        self.budget = settings.max_tokens_per_gpu * settings.sequence_parallel
        # On a GPU a thread of its own would pin memory for the node's first device.
        self._thread = ThreadPoolExecutor(
            1, "read-ahead", get_torch_device().set_device, (get_device_id(),)
        )
        self._batches = read_ahead(self._thread, self.prepare, steps)

    def __enter__(self) -> Stepper:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._thread.shutdown(cancel_futures=True)

    def prepare(self, step: int) -> Batch:
        """Returns the batch of ``step``, a pure function of the seed and the step."""
        chosen = sampler.step_rows(
            step, len(self.rows), self.settings.batch_size, self.settings.seed
        ).tolist()
        plan = self._plan(self.rows, chosen)
        mine = plan.micro_batches[self.group]
        return Batch(step, chosen, plan, [self._pack(self.rows, micro) for micro in mine])

    def train(self, step: int, after: LaunchedStep | None = None) -> LaunchedStep:
        """Launches optimizer step ``step`` (0-based); unless the engine ``skips_on_device``, waits
        for its end. ``after`` is the previous step if that may still be running: the time of this
        step begins at its end.
        """
        begin = Timestamp() if after is None else after.pending.end
        waiting = time.monotonic()
        batch = next(self._batches)
        assert batch.step == step
        data_seconds = time.monotonic() - waiting
        lr = self.engine.lr_scheduler.get_last_lr()[0]
        with self.engine.train_mode():
            pending = self.engine.train_step(
                batch.packed, sum(map(self.rows.supervised, batch.rows))
            )
        self.engine.lr_scheduler_step()
        fill = batch.plan.tokens / (self.budget * self.groups * batch.plan.micro_steps)
        return LaunchedStep(batch, self.group, fill, lr, data_seconds, begin, pending)

    def validate(self, held_out: TokenDataset, asked: Callable[[], bool]) -> TokenMeans | None:
        """Returns the means over the supervised tokens of all held-out rows; the number of ranks
        does not matter.

        Before each micro-batch the ranks agree whether one of them is ``asked`` to stop; if so,
        returns None.
        """
        plan = self._plan(held_out, range(len(held_out)))
        total = torch.zeros(3, dtype=torch.float64)
        before: HostCopy | None = None
        micro_batches = plan.micro_batches[self.group]
        ready = read_ahead(self._thread, lambda rows: self._pack(held_out, rows), micro_batches)
        with self.engine.eval_mode():
            for packed in ready:
                (stop,) = process_group.any_rank(asked())
                if stop:
                    return None
                launched = self.engine.evaluate(packed)
                # One micro-batch late, so that the device always has work.
                if before is not None:
                    total += before.read()
                before = launched
            if before is not None:
                total += before.read()
        dist.all_reduce(total)
        return TokenMeans(*(total / sum(map(held_out.supervised, range(len(held_out))))).tolist())

    def _pack(self, rows: TokenDataset, chosen: Iterable[int]) -> Packed:
        return self.engine.pack([rows[row] for row in chosen])

    def _plan(self, rows: TokenDataset, chosen: Iterable[int]) -> StepPlan:
        return plan_step(
            {row: rows.lengths[row] for row in chosen}, self.groups, self.budget, self.shape
        )
