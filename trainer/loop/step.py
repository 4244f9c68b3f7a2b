"""Runs one optimizer step or validation pass of a rank: chooses, plans and reads rows and feeds the
engine.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from omegaconf import DictConfig

from trainer.batching import sampler
from trainer.batching.balance import StepPlan, plan_step
from trainer.batching.dataset import TokenDataset
from trainer.batching.flops import Shape
from trainer.process import process_group
from trainer.run.step_metrics import TokenMeans

if TYPE_CHECKING:
    from trainer.engine.fsdp import Engine


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
    """Time to read this rank's rows."""
    seconds: float
    """Time of the step on this rank, from planning to the end, data loading included."""
    head_seconds: float = 0.0
    """Time in this rank's output head, in which it waits for no other."""
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
    """Ranks that had tokens of it."""
    host: str
    """The first one's node."""


class Stepper:
    """Runs steps of ``rows`` with ``settings`` (the section ``train``) on an engine; collective
    over the ranks.
    """

    def __init__(self, engine: Engine, rows: TokenDataset, settings: DictConfig) -> None:
        self.engine, self.rows, self.settings = engine, rows, settings
        self.shape = replace(
            Shape.of(engine.module.config.to_dict()), lora_rank=settings.lora_rank or 0
        )
        self.groups, self.group = engine.get_data_parallel_size(), engine.get_data_parallel_rank()
        self.budget = settings.max_tokens_per_gpu * settings.sequence_parallel

    def train(self, step: int) -> StepResult:
        """Runs optimizer step ``step`` (0-based)."""
        begin = time.monotonic()
        chosen = sampler.step_rows(
            step, len(self.rows), self.settings.batch_size, self.settings.seed
        ).tolist()
        self.plan = plan = self._plan(self.rows, chosen)
        reading = time.monotonic()
        batches = [[self.rows[row] for row in micro] for micro in plan.micro_batches[self.group]]
        read = time.monotonic()
        lr = self.engine.lr_scheduler.get_last_lr()[0]
        with self.engine.train_mode():
            means, grad_norm = self.engine.train_step(
                batches, sum(map(self.rows.supervised, chosen))
            )
        self.engine.lr_scheduler_step()
        return StepResult(
            rows=chosen,
            means=means,
            grad_norm=grad_norm,
            lr=lr,
            tokens=plan.tokens,
            flops=plan.flops,
            balance=plan.efficiency,
            fill=plan.tokens / (self.budget * self.groups * plan.micro_steps),
            data_seconds=read - reading,
            seconds=time.monotonic() - begin,
            head_seconds=self.engine.head_seconds,
            head_tokens=self.engine.head_tokens,
        )

    def row_losses(self) -> list[RowLoss]:
        """Returns the losses of the last step's rows, before its update, highest first; those that
        are not finite lead. Collective, and waits for the device.
        """
        mine: dict[int, tuple[float, float]] = {}
        micro_batches = self.plan.micro_batches[self.group]
        for rows, found in zip(micro_batches, self.engine.row_losses, strict=True):
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

    def validate(self, held_out: TokenDataset, asked: Callable[[], bool]) -> TokenMeans | None:
        """Returns the means over the supervised tokens of all held-out rows; the number of ranks
        does not matter.

        Before each micro-batch the ranks agree whether one of them is ``asked`` to stop; if so,
        returns None.
        """
        plan = self._plan(held_out, range(len(held_out)))
        total = torch.zeros(3, dtype=torch.float64)
        with self.engine.eval_mode():
            for micro in plan.micro_batches[self.group]:
                (stop,) = process_group.any_rank(asked())
                if stop:
                    return None
                total += self.engine.evaluate([[held_out[row] for row in micro]])
        dist.all_reduce(total)
        return TokenMeans(*(total / sum(map(held_out.supervised, range(len(held_out))))).tolist())

    def _plan(self, rows: TokenDataset, chosen: Iterable[int]) -> StepPlan:
        return plan_step(
            {row: rows.lengths[row] for row in chosen}, self.groups, self.budget, self.shape
        )
