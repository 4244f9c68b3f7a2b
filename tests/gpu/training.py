"""Measures steps of training: the figures of any trainer, and the host waits and memory of ours."""

from __future__ import annotations

import json
import math
import resource
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from tests.gpu.bench import Bench
from trainer.batching.balance import MicroBatches, plan_step
from trainer.batching.flops import training_flops
from trainer.planning import memory
from trainer.planning.cluster import Cluster
from trainer.planning.hardware import GPUS, kind_of
from trainer.planning.step_time import step_time
from trainer.process import gpu_binding, process_group

RATE, MFU, FIRST, LAST = "tokens/s", "causal MFU", "first loss", "last loss"
PEAK, RESIDENT = "peak tensors", "peak resident set"
PARITY = 1e-3
"""Relative difference of the first step's loss; bf16 has eight bits, and their rounding averages
out over tokens.
"""
KNOWN_WAITS = 2
"""A step waits for the check that the gradient is finite and for the gradient's norm, and with a
fused optimizer for nothing.
"""
SANE = 0.1
"""Relative difference of a random model's first loss from the logarithm of its vocabulary."""
PLANNED = 1.02
"""Share of the planner's forecast that tensors may take; cuBLAS's workspace is allocated beside
them.
"""


@dataclass(frozen=True)
class Ours:
    """The trainer's engine and rows in this process."""

    config: DictConfig
    engine: Any
    rows: Any

    @classmethod
    def build(cls, config: DictConfig, steps: int) -> Ours:
        """Joins a process group of one rank and builds the engine for ``steps`` steps."""
        from data_prep.output.folder import dataset_folder, token_file
        from trainer.batching.dataset import TokenDataset
        from trainer.engine.build import build_engine

        gpu_binding.check_device(config.device)
        process_group.join(config.device, "env://")
        engine = build_engine(config, steps)
        return cls(config, engine, TokenDataset(token_file(dataset_folder(config), "train")))

    def stepper(self, steps: range) -> Any:
        """Trains these steps, in their order."""
        from trainer.loop.step import Stepper

        return Stepper(self.engine, self.rows, self.config.train, steps)

    def losses(self, first: int, count: int) -> list[float]:
        """The losses of ``count`` steps from ``first`` on."""
        steps = range(first, first + count)
        with self.stepper(steps) as stepper:
            return [stepper.train(step).result().means.loss for step in steps]


def steps(bench: Bench) -> None:
    """The 4B recipe's steps, with the case's settings beside the recipe's own."""
    config = bench.config()
    ours, file = Ours.build(config, bench.setting.steps), bench.folder / f"{bench.case.name}.jsonl"
    count = bench.setting.steps
    with ours.stepper(range(count + 1)) as stepper:
        for step in range(count):
            record(file, step + 1, stepper.train(step).result().means.loss)
        waits = host_waits(lambda: stepper.train(count)) if bench.on_gpu else []
    if bench.on_gpu:
        known = 0 if ours.engine.skips_on_device else KNOWN_WAITS
        bench.figure("host waits", "per step", len(waits), limit=known, note=", ".join(waits))
    found = figures(bench, config, file)
    if bench.case.overrides:
        compare(bench, found, bench.figures("ours"), "ours")
        return
    compare(bench, found, {}, "")
    if MFU not in found:
        bench.skip(MFU, "the device's peak is not known")
    bench.figure(
        "sane loss",
        "relative",
        abs(found[FIRST] / math.log(bench.setting.shape.vocabulary) - 1),
        limit=SANE,
    )
    setup = layout(bench, config)
    planned = sum(memory.peak(bench.shape(config), setup).values()) / 1e9
    limit = PLANNED * planned if bench.on_gpu else None
    metric, peer = peak_metric(bench), {"peer_name": "the planner's"}
    bench.figure(f"{metric} of plan", "GB", found[metric], peer=planned, limit=limit, **peer)
    if (kind := bench.on_gpu and kind_of(torch.cuda.get_device_name())) in GPUS:
        timed = bench.step_lengths(config)[bench.setting.warm :]
        mean = sum(sum(step.values()) for step in timed) / found[RATE] / len(timed)
        forecast = statistics.fmean(
            planned_seconds(bench, config, setup, kind, step) for step in timed
        )
        bench.figure("step of plan", "s", mean, peer=forecast, **peer)
    if not bench.on_gpu:
        bench.skip("host waits", "a CPU waits for nothing")


def layout(bench: Bench, config: DictConfig) -> memory.Setup:
    """Returns the planner's layout of the recipe, at the fullest micro-batch that there is."""
    full = bench.setting.precision == "fp32"
    fullest = max(
        sum(lengths[row] for row in rows)
        for lengths in bench.step_lengths(config)
        for rows in _micro_batches(bench, config, lengths)[0]
    )
    return memory.Setup(
        ranks=1,
        sequence_parallel=1,
        tokens=fullest,
        checkpointing=config.train.checkpointing,
        compute=4 if full else 2,
        sdpa=full,
        multi_tensor=bench.on_gpu,
        fused=config.train.fused_optimizer,
        compiled=config.train.compile,
        liger=config.train.liger,
    )


def planned_seconds(
    bench: Bench, config: DictConfig, setup: memory.Setup, kind: str, lengths: dict[int, int]
) -> float:
    """Returns the planner's seconds of a step with rows of ``lengths`` on one GPU of a kind."""
    alone = Cluster(GPUS[kind], nodes=1, gpus_per_node=1, network=1.0)
    micro_batches = _micro_batches(bench, config, lengths)
    return step_time(bench.shape(config), setup, alone, micro_batches, lengths).total


def _micro_batches(bench: Bench, config: DictConfig, lengths: dict[int, int]) -> MicroBatches:
    budget = config.train.max_tokens_per_gpu
    return plan_step(lengths, 1, budget, bench.shape(config)).micro_batches


def host_waits(call: Callable[[], object]) -> list[str]:
    """Returns the places, as file:line, where ``call`` made this process wait for the device."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return waits_among(caught)


def waits_among(caught: list[warnings.WarningMessage]) -> list[str]:
    """The warnings that torch gives in its mode of finding waits, by file and line."""
    found = (w for w in caught if "synchronizing CUDA operation" in str(w.message))
    return [f"{Path(w.filename).name}:{w.lineno}" for w in found]


def record(out: Path, step: int, loss: float) -> None:
    """Appends a finished step's line {"step", "loss", "at", "memory"}: when it was over, and the
    process's peak memory so far in bytes, of tensors on a GPU, the resident set on a CPU.
    """
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
        found[MFU] = (
            float(training_flops(bench.shape(config), timed).sum()) / seconds / bench.setting.peak
        )
    return found


def peak_metric(bench: Bench) -> str:
    """Returns the name of the memory that ``record`` notes."""
    return PEAK if bench.on_gpu else RESIDENT


def compare(
    bench: Bench, found: dict[str, float], other: dict[str, float], peer: str, **limits: Any
) -> None:
    """Adds rows of ``found`` beside ``other``, whose name is ``peer``; the first losses have to be
    the same.
    """
    for metric, unit in (
        (RATE, "1/s"),
        (MFU, ""),
        (peak_metric(bench), "GB"),
        (FIRST, ""),
        (LAST, ""),
    ):
        if metric in found:
            theirs = other.get(metric)
            name = None if theirs is None else peer
            bench.figure(
                metric, unit, found[metric], peer=theirs, peer_name=name, limit=limits.get(metric)
            )
    if FIRST in other:
        apart = abs(found[FIRST] / other[FIRST] - 1)
        bench.figure("loss parity", "relative", apart, peer_name=peer, limit=PARITY)
