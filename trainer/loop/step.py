"""Runs one optimizer step or validation pass of a rank: chooses, plans and reads rows and feeds the
engine.
"""

from __future__ import annotations

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
        plan = self._plan(self.rows, chosen)
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
        )

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
