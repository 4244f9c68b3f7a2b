"""Steps of any trainer as it leaves them, and the figures over them that stand side by side."""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from tests.gpu.bench import Bench
from trainer.flops import training_flops

RATE, MFU, FIRST, LAST = "tokens/s", "causal MFU", "first loss", "last loss"
PEAK, RESIDENT = "peak tensors", "peak resident set"
PARITY = 1e-3
"""Relative difference of the first step's loss; bf16 has eight bits, and their rounding averages out over tokens."""


def record(out: Path, step: int, loss: float) -> None:
    """Appends a finished step's line {"step", "loss", "at", "memory"}: when it was over, and the process's peak memory
    so far in bytes, of tensors on a GPU, the resident set on a CPU."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
        memory = torch.cuda.max_memory_allocated()
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    line = {"step": step, "loss": loss, "at": time.monotonic(), "memory": memory}
    with out.open("a", encoding="utf-8") as f:
        f.write(json.dumps(line) + "\n")


def figures(bench: Bench, config: DictConfig, file: Path) -> dict[str, float]:
    """Metric -> figure of a training case from its file of steps, speeds over the timed ones."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(lines) == bench.setting.steps, f"{len(lines)} steps were recorded"
    warm = bench.setting.warm
    seconds = lines[-1]["at"] - lines[warm - 1]["at"]
    timed = [length for step in bench.step_lengths(config)[warm:] for length in step.values()]
    found = {
        RATE: sum(timed) / seconds,
        peak_metric(bench): max(line["memory"] for line in lines) / 1e9,
        FIRST: lines[0]["loss"],
        LAST: lines[-1]["loss"],
    }
    if bench.setting.peak is not None:
        found[MFU] = float(training_flops(bench.shape(config), timed).sum()) / seconds / bench.setting.peak
    return found


def peak_metric(bench: Bench) -> str:
    """What the recorded memory is."""
    return PEAK if bench.on_gpu else RESIDENT


def compare(bench: Bench, found: dict[str, float], other: dict[str, float], peer: str, **limits: Any) -> None:
    """Adds rows of ``found`` beside ``other``, whose name is ``peer``; the first losses have to be the same."""
    for metric, unit in ((RATE, "1/s"), (MFU, ""), (peak_metric(bench), "GB"), (FIRST, ""), (LAST, "")):
        if metric in found:
            theirs = other.get(metric)
            name = None if theirs is None else peer
            bench.figure(metric, unit, found[metric], peer=theirs, peer_name=name, limit=limits.get(metric))
    if FIRST in other:
        apart = abs(found[FIRST] / other[FIRST] - 1)
        bench.figure("loss parity", "relative", apart, peer_name=peer, limit=PARITY)
