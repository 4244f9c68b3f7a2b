"""Gathers per-rank timings, losses and memory into one StepMetrics."""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.distributed as dist
from omegaconf import DictConfig
from verl.utils.device import get_device_name, get_torch_device

from trainer.loop.step import Done
from trainer.planning.hardware import peak_flops
from trainer.run.step_metrics import StepMetrics, finite


class Meter:
    """Turns each rank's ``Done`` into the step's metrics, the same on every rank."""

    def __init__(self, engine: Any, cluster: DictConfig, total: int, first: int) -> None:
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

    def gather(
        self, step: int, epoch: int, done: Done, val_loss: float | None, asked: bool, saved: bool
    ) -> tuple[StepMetrics, bool, bool]:
        """Returns (metrics of step ``step`` (1-based), ``asked`` on any rank, ``saved`` on any
        rank). Collective.

        ``asked``: this rank was asked to stop; ``saved``: the save in flight has ended on this
        rank.
        """
        memory = get_torch_device().max_memory_allocated() / 1e9
        get_torch_device().reset_peak_memory_stats()
        mine = torch.tensor(
            [done.loss, done.seconds, done.data_seconds, memory, asked, saved], dtype=torch.float64
        )
        everyone = torch.empty(self.world * len(mine), dtype=torch.float64)
        dist.all_gather_into_tensor(everyone, mine)
        loss, seconds, data_seconds, memories, stops, saves = everyone.view(self.world, -1).unbind(
            1
        )
        slowest = seconds.max().item()
        rate = done.tokens / slowest
        metrics = StepMetrics(
            step=step,
            total=self.total,
            epoch=epoch,
            loss=finite(loss.sum().item()),
            grad_norm=finite(done.grad_norm),
            lr=done.lr,
            tokens=done.tokens,
            tokens_per_s=rate,
            tokens_per_s_per_gpu=rate / self.world,
            mfu=done.flops / (slowest * self.world * self.peak) if self.peak else None,
            seconds=slowest,
            mean_seconds=seconds.mean().item(),
            data_seconds=data_seconds.max().item(),
            balance=done.balance,
            fill=done.fill,
            peak_memory_gb=memories.max().item(),
            eta_s=(time.monotonic() - self.begin) / (step - self.first) * (self.total - step),
            skipped=finite(done.grad_norm) is None,
            val_loss=val_loss,
        )
        return metrics, bool(stops.any()), bool(saves.any())


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
