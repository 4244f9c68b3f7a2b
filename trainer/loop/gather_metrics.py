"""Gathers per-rank timings, losses and memory into one StepMetrics."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from omegaconf import DictConfig
from verl.utils.device import get_device_name, get_torch_device

from trainer.loop.step import StepResult
from trainer.planning.hardware import peak_flops
from trainer.run.step_metrics import StepMetrics, TokenMeans, finite

if TYPE_CHECKING:
    from trainer.engine.fsdp import Engine


SLOWER = 0.15
"""A rank counts as slow in a step if its time per token is above the other ranks' by more than this
share.
"""


class Meter:
    """Turns each rank's ``StepResult`` into the step's metrics, the same on every rank."""

    def __init__(self, engine: Engine, cluster: DictConfig, total: int, first: int) -> None:
        """``cluster`` is the recipe's section; steps ``first`` + 1 to ``total`` will be trained."""
        self.total, self.first, self.begin = total, first, time.monotonic()
        self.world = dist.get_world_size()
        bf16 = engine.engine_config.mixed_precision["param_dtype"] == "bf16"
        on_gpu = get_device_name() == "cuda"
        self.peak = (
            _peak(torch.cuda.get_device_name(), cluster.gpu_peak_tflops)
            if on_gpu and bf16
            else None
        )
        get_torch_device().reset_peak_memory_stats()

    def peak_gb(self) -> float:
        """Returns this rank's peak memory since the last call, in GB. Memory is allocated when work
        is launched, so call it before launching the next step.
        """
        peak = get_torch_device().max_memory_allocated() / 1e9
        get_torch_device().reset_peak_memory_stats()
        return float(peak)

    def gather(
        self,
        step: int,
        epoch: int,
        result: StepResult,
        held_out: TokenMeans | None,
        peak_gb: float,
    ) -> StepMetrics:
        """Returns the metrics of step ``step`` (1-based), with ``held_out``, the same on every
        rank, if the step was validated. Collective.
        """
        mine = torch.tensor(
            [
                *result.means,
                result.seconds,
                result.data_seconds,
                peak_gb,
                result.head_seconds,
                result.head_tokens,
            ],
            dtype=torch.float64,
        )
        everyone = torch.empty(self.world * len(mine), dtype=torch.float64)
        dist.all_gather_into_tensor(everyone, mine)
        *shares, seconds, data_seconds, memories, head_seconds, head_tokens = everyone.view(
            self.world, -1
        ).unbind(1)
        loss, entropy, accuracy = (finite(share.sum().item()) for share in shares)
        slowest = seconds.max().item()
        rate = result.tokens / slowest
        metrics = StepMetrics(
            step=step,
            total=self.total,
            epoch=epoch,
            loss=loss,
            grad_norm=finite(result.grad_norm),
            lr=result.lr,
            tokens=result.tokens,
            tokens_per_s=rate,
            tokens_per_s_per_gpu=rate / self.world,
            mfu=result.flops / (slowest * self.world * self.peak) if self.peak else None,
            seconds=slowest,
            mean_seconds=seconds.mean().item(),
            data_seconds=data_seconds.max().item(),
            balance=result.balance,
            fill=result.fill,
            peak_memory_gb=memories.max().item(),
            eta_s=(time.monotonic() - self.begin) / (step - self.first) * (self.total - step),
            skipped=finite(result.grad_norm) is None,
            rows=len(result.rows),
            entropy=entropy,
            token_accuracy=accuracy,
            slow=slow_ranks(head_seconds.tolist(), head_tokens.tolist()),
        )
        return metrics if held_out is None else metrics.with_held_out(held_out)


def slow_ranks(seconds: Sequence[float], tokens: Sequence[float]) -> list[tuple[int, float]]:
    """Returns (rank, ratio) of each rank whose time per token is more than ``SLOWER`` above the
    median of the other ranks'.

    A rank with less than half of the mean tokens is left out: work that does not depend on length
    would make it count as slow.
    """
    least = sum(tokens) / len(tokens) / 2
    rates = {r: s / n for r, (s, n) in enumerate(zip(seconds, tokens, strict=True)) if n > least}
    if len(rates) < 2:
        return []
    # Without its own, which is above, a slow rank's median is at least this one.
    limit = (1 + SLOWER) * sorted(rates.values())[len(rates) // 2 - 1]
    found = []
    for rank in [rank for rank, rate in rates.items() if rate > limit]:
        usual = median(rate for r, rate in rates.items() if r != rank)
        if rates[rank] > (1 + SLOWER) * usual > 0:
            found.append((rank, round(rates[rank] / usual, 3)))
    return found


def _peak(device: str, stated: float | None) -> float | None:
    """Returns the dense bf16 peak in FLOP/s: ``stated`` (TFLOP/s), else the table's, else None with
    a log line.
    """
    peak = peak_flops(device) if stated is None else stated * 1e12
    if peak is None and dist.get_rank() == 0:
        print(
            f"MFU is not known on {device}, whose peak is not in the table: give its dense bf16 "
            "peak in TFLOP/s with cluster.gpu_peak_tflops=N",
            flush=True,
        )
    return peak
