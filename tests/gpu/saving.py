"""Checkpoints while steps go on, and the same steps again from one: in another process, twice, and with adapters."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch.distributed as dist

from data_prep.files import read_json, write_json
from tests.gpu.bench import Bench
from tests.gpu.training import PEAK, Ours, compare, figures, record
from trainer.rundir import Run

QUIET, AFTER = 3, 3
"""Steps before a save that are timed, and steps after it that are repeated from the checkpoint."""
RESUMED = 1e-3
"""Relative difference of losses after a resume: attention's backward adds in an order of its own."""
TOTAL = 10_000
"""Steps of the schedule; no case comes to its end."""
CARD = 12.0
"""GB: the card of the published QLoRA run."""


def save(bench: Bench) -> None:
    """Steps alone, and while checkpoints are written; leaves a checkpoint and the losses of the steps after it."""
    ours = Ours.build(bench.config(), TOTAL)
    saver, run = _saver(bench, ours), _run(bench)
    step = bench.setting.warm
    ours.losses(0, step)
    alone, during = [], []
    for number in range(bench.setting.saves):
        alone += [_seconds(ours, step + i) for i in range(QUIET)]
        step += QUIET
        begin = time.monotonic()
        saver.save(step, {"identity": {}})
        pause = time.monotonic() - begin
        saved, losses = step, []
        while not saver.ended or len(losses) < AFTER:
            writing = not saver.ended
            start = time.monotonic()
            losses += ours.losses(step, 1)
            if writing:
                during.append(time.monotonic() - start)
            step += 1
        saver.settle()
        took = read_json(run.checkpoint(saved) / "manifest.json")["seconds"]
        size = sum(path.stat().st_size for path in run.checkpoint(saved).iterdir()) / 1e9
        if number == 0:
            write_json(bench.folder / "losses.json", {"step": saved, "losses": losses[:AFTER]})
            bench.figure("pause of the first save", "s", pause, note="host memory is allocated")
            bench.figure("checkpoint", "GB", size)
            bench.figure("call to commit", "s", took, note=f"{size / took:.2f} GB/s written and hashed")
        else:
            bench.figure(f"pause of save {number + 1}", "s", pause)
    usual = statistics.median(alone)
    if during:
        bench.figure("step while writing", "s", statistics.median(during), peer=usual, peer_name="step alone")
    else:
        bench.skip("step while writing", "no step was begun before the save had ended")


def resume(bench: Bench) -> None:
    """The steps after the checkpoint of ``save``, in this process."""
    ours, kept = Ours.build(bench.config(), TOTAL), read_json(bench.folder / "losses.json")
    begin = time.monotonic()
    load(bench, ours, kept["step"])
    bench.figure("load", "s", time.monotonic() - begin)
    again = ours.losses(kept["step"], AFTER)
    bench.figure("losses after the resume", "relative difference", apart(kept["losses"], again), limit=RESUMED)


def deterministic(bench: Bench) -> None:
    """The same steps from that checkpoint twice, with the case's settings: equal bit for bit."""
    ours, step = Ours.build(bench.config(), TOTAL), read_json(bench.folder / "losses.json")["step"]
    runs = []
    for _ in range(2):
        load(bench, ours, step)
        begin = time.monotonic()
        losses = ours.losses(step, AFTER)
        seconds = (time.monotonic() - begin) / AFTER
        runs.append([*losses, *_sums(ours.engine)])
    bench.figure("losses and weights", "largest difference", apart(*runs), limit=0.0)
    usual = [r.peer for r in _rows_of(bench, "save") if r.metric == "step while writing"]
    bench.figure("step", "s", seconds, peer=usual[0] if usual else None, peer_name="not deterministic")


def adapters(bench: Bench) -> None:
    """Steps of a QLoRA at the card's settings, a save, and the steps after it again from the checkpoint."""
    config, setting = bench.config(), bench.setting
    ours, file = Ours.build(config, TOTAL), bench.folder / f"{bench.case.name}.jsonl"
    for step in range(setting.steps):
        record(file, step + 1, ours.stepper.train(step).loss)
    found = figures(bench, config, file)
    compare(bench, found, {}, "", **{PEAK: CARD})
    mean = statistics.mean(bench.load.lengths(setting.steps))
    bench.figure("rows/s", "1/s", found["tokens/s"] / mean, note=f"{mean:.0f} tokens per row")
    saver = _saver(bench, ours)
    begin = time.monotonic()
    saver.save(setting.steps, {"identity": {}})
    bench.figure("pause of a save", "s", time.monotonic() - begin)
    losses = ours.losses(setting.steps, AFTER)
    saver.finish()
    load(bench, ours, setting.steps)
    again = ours.losses(setting.steps, AFTER)
    bench.figure("losses after the resume", "relative difference", apart(losses, again), limit=RESUMED)


def load(bench: Bench, ours: Ours, step: int) -> None:
    """Restores the checkpoint of ``step``."""
    from trainer import checkpoint

    checkpoint.load(_run(bench).checkpoint(step), ours.engine, ours.config.train.seed, dist.new_group(backend="gloo"))


def apart(one: list[float], other: list[float]) -> float:
    """The largest relative difference between numbers of the same place."""
    return max(abs(a - b) / max(abs(a), 1e-30) for a, b in zip(one, other, strict=True))


def _run(bench: Bench) -> Run:
    return Run(bench.folder / f"run-{bench.data(bench.case.load).name}")


def _saver(bench: Bench, ours: Ours) -> Any:
    from trainer.retention import Retention
    from trainer.saving import Saver
    from trainer.watchdog import Watchdog, stacks

    run = _run(bench)
    run.root.mkdir(exist_ok=True)
    watchdog = Watchdog(10, stacks(run.root, 0))
    return Saver(run, ours.engine, Retention(9, None, 0), watchdog, dist.new_group(backend="gloo"))


def _seconds(ours: Ours, step: int) -> float:
    begin = time.monotonic()
    ours.losses(step, 1)  # which waits for the device
    return time.monotonic() - begin


def _sums(engine: Any) -> list[float]:
    """A number for each trained weight that changes with any of its bits, all but surely."""
    return [p.detach().double().norm().item() for p in engine.module.parameters() if p.requires_grad]


def _rows_of(bench: Bench, case: str) -> list[Any]:
    from tests.gpu import rows

    return [row for row in rows.read(bench.out).rows if row.case == case]
