"""Checkpoints while steps go on, and the same steps again from one: in another process, twice, and
with adapters.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch.distributed as dist

from common.files import read_json, write_json
from tests.gpu.bench import Bench
from tests.gpu.training import PEAK, Ours, compare, figures, record
from trainer.run.folder import Attempt, Run

QUIET, AFTER = 3, 3
"""Steps before a save that are timed, and steps after it that are repeated from the checkpoint."""
RESUMED = 1e-3
"""Relative difference of losses after a resume: attention's backward adds in an order of its own.
"""
TOTAL = 10_000
"""Steps of the schedule; no case comes to its end."""
CARD = 12.0
"""GB: the card of the published QLoRA run."""


def save(bench: Bench) -> None:
    """Steps alone, and while checkpoints are written; leaves a checkpoint and the losses of the
    steps after it.
    """
    ours = Ours.build(bench.config(), TOTAL)
    saver, run = _saver(bench, ours), _run(bench)
    step = bench.setting.warm
    ours.losses(0, step)
    alone, during = [], []
    for number in range(bench.setting.saves):
        alone += [_seconds(ours, step + i) for i in range(QUIET)]
        step += QUIET
        saved, state = step, sums(ours.engine)
        begin = time.monotonic()
        saver.save(step, {"identity": {}})
        pause = time.monotonic() - begin
        losses: list[float] = []
        while not saver.ended or len(losses) < AFTER:
            writing = not saver.ended
            start = time.monotonic()
            losses += ours.losses(step, 1)
            if writing:
                during.append(time.monotonic() - start)
            step += 1
        if not saver.settle():
            raise RuntimeError("the checkpoint could not be saved")
        took = read_json(run.checkpoint(saved) / "manifest.json")["seconds"]
        size = sum(path.stat().st_size for path in run.checkpoint(saved).iterdir()) / 1e9
        if number == 0:
            write_json(
                bench.folder / "losses.json",
                {"step": saved, "state": state, "losses": losses[:AFTER]},
            )
            bench.figure("pause of the first save", "s", pause, note="host memory is allocated")
            bench.figure("checkpoint", "GB", size)
            bench.figure(
                "call to commit", "s", took, note=f"{size / took:.2f} GB/s written and hashed"
            )
        else:
            bench.figure(f"pause of save {number + 1}", "s", pause)
    usual = statistics.median(alone)
    bench.figure("step alone", "s", usual)
    if during:
        bench.figure(
            "step while writing", "s", statistics.median(during), peer=usual, peer_name="step alone"
        )
    else:
        bench.skip("step while writing", "no step was begun before the save had ended")


def resume(bench: Bench) -> None:
    """The state of the checkpoint of ``save``, and the steps after it, in this process."""
    ours, kept = Ours.build(bench.config(), TOTAL), read_json(bench.folder / "losses.json")
    begin = time.monotonic()
    load(bench, ours, kept["step"])
    bench.figure("load", "s", time.monotonic() - begin)
    _same_state(bench, kept["state"], sums(ours.engine))
    again = ours.losses(kept["step"], AFTER)
    bench.figure(
        "losses after the resume",
        "relative difference",
        apart(kept["losses"], again),
        limit=RESUMED,
    )


def deterministic(bench: Bench) -> None:
    """The same steps from that checkpoint twice, with the case's settings: equal bit for bit."""
    ours, step = Ours.build(bench.config(), TOTAL), read_json(bench.folder / "losses.json")["step"]
    runs = []
    for _ in range(2):
        load(bench, ours, step)
        begin = time.monotonic()
        losses = ours.losses(step, AFTER)
        seconds = (time.monotonic() - begin) / AFTER
        runs.append([*losses, *sums(ours.engine)])
    bench.figure("losses and state", "largest difference", apart(*runs), limit=0.0)
    bench.figure(
        "step",
        "s",
        seconds,
        peer=bench.figures("save")["step alone"],
        peer_name="not deterministic",
    )


def adapters(bench: Bench) -> None:
    """Steps of a QLoRA at the card's settings, a save, and the steps after it again from the
    checkpoint.
    """
    config, setting = bench.config(), bench.setting
    ours, file = Ours.build(config, TOTAL), bench.folder / f"{bench.case.name}.jsonl"
    with ours.stepper(range(setting.steps)) as stepper:
        for step in range(setting.steps):
            record(file, step + 1, stepper.train(step).result().means.loss)
    found = figures(bench, config, file)
    compare(bench, found, {}, "", **{PEAK: CARD})
    mean = statistics.mean(bench.load.lengths(setting.steps))
    bench.figure("rows/s", "1/s", found["tokens/s"] / mean, note=f"{mean:.0f} tokens per row")
    saver, state = _saver(bench, ours), sums(ours.engine)
    begin = time.monotonic()
    saver.save(setting.steps, {"identity": {}})
    bench.figure("pause of a save", "s", time.monotonic() - begin)
    losses = ours.losses(setting.steps, AFTER)
    saver.finish()
    load(bench, ours, setting.steps)
    _same_state(bench, state, sums(ours.engine))
    again = ours.losses(setting.steps, AFTER)
    bench.figure(
        "losses after the resume", "relative difference", apart(losses, again), limit=RESUMED
    )


def load(bench: Bench, ours: Ours, step: int) -> None:
    """Restores the checkpoint of ``step``."""
    from trainer.checkpoint import checkpoint

    checkpoint.load(
        _run(bench).checkpoint(step),
        ours.engine,
        ours.config.train.seed,
        dist.new_group(backend="gloo"),
    )


def apart(one: list[float], other: list[float]) -> float:
    """The largest relative difference between numbers of the same place."""
    return max(abs(a - b) / max(abs(a), 1e-30) for a, b in zip(one, other, strict=True))


def sums(engine: Any) -> list[float]:
    """A number for each tensor of model and optimizer, which changes with nearly any of its bits,
    and their numbers.
    """
    from trainer.checkpoint import checkpoint

    tensors, numbers = checkpoint.state(engine)
    norms = [tensor.double().norm().item() for tensor in tensors.values()]
    counts = [float(value) for value in numbers.values() if isinstance(value, int | float)]
    return [*norms, *counts, *engine.lr_scheduler.get_last_lr()]


def _same_state(bench: Bench, saved: list[float], loaded: list[float]) -> None:
    bench.figure("state after the resume", "largest difference", apart(saved, loaded), limit=0.0)


def _run(bench: Bench) -> Run:
    return Run(bench.folder / f"run-{bench.data(bench.case.load).name}")


def _saver(bench: Bench, ours: Ours) -> Any:
    from trainer.checkpoint.retention import Retention
    from trainer.checkpoint.saver import Saver
    from trainer.process.watchdog import Watchdog

    run = _run(bench)
    run.root.mkdir(exist_ok=True)
    watchdog = Watchdog(10, Attempt(run.root).stacks(0))
    return Saver(run, ours.engine, Retention(9, None, 0), watchdog, dist.new_group(backend="gloo"))


def _seconds(ours: Ours, step: int) -> float:
    begin = time.monotonic()
    ours.losses(step, 1)  # which waits for the device
    return time.monotonic() - begin
