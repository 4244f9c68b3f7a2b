"""Seconds of a training step by part: its rows made in line, and read while the step before runs.

    python -m tests.bench.bench_parts [STEPS]      (default 10)

Two gloo ranks on the CPU train the model and rows of ``bench_steps``; figures are rank 0's, medians
over steps, and each step runs both ways in turn. Below them are the host's work on the rows of the
4B recipe's steps, measured, and the GPUs' work in such a step, on paper. A CPU does a step's work
itself: what a GPU gains by not waiting for the host is not shown here (``make gpu-check`` counts
the waits).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import wraps
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from common.records import Tokens
from tests.bench.bench_steps import BATCH, RANKS, WARM, prepare, recipe
from tests.bench.table import Result, publish
from tests.token_rows import write_tokens
from trainer.planning.planner import Planner
from trainer.recipe import load as configs
from trainer.run import base_model
from trainer.run.folder import Run

LINE, AHEAD = "in line", "read ahead"
MADE = ("planning", "reading", "packing")
"""Parts that a thread takes over."""
PARTS = ("wait for rows", "forward and backward", "optimizer", "gather, judge, log", "step")


class Parts:
    """Seconds of each part in the present step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def timed(self, owner: Any, name: str, part: str) -> None:
        """Counts what ``owner.name`` takes as ``part``, from here on."""
        real: Callable[..., Any] = getattr(owner, name)

        @wraps(real)
        def called(*arguments: Any, **named: Any) -> Any:
            with self.of(part):
                return real(*arguments, **named)

        setattr(owner, name, called)

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Counts the time in the context as ``part``."""
        begin = time.perf_counter()
        yield
        self.seconds[part] += time.perf_counter() - begin

    def take(self) -> dict[str, float]:
        """Returns the seconds since the last call."""
        found, self.seconds = dict(self.seconds), defaultdict(float)
        return found


def measure(root: Path, count: int) -> None:
    """Is one rank; rank 0 leaves ROOT/parts.json: for each way the parts of its steps."""
    import torch.distributed as dist

    from data_prep.output.folder import dataset_folder, token_file
    from trainer.batching.dataset import TokenDataset
    from trainer.engine.build import build_engine
    from trainer.loop import step as steps
    from trainer.loop.gather_metrics import Meter
    from trainer.loop.loggers import Tracker
    from trainer.loop.recorder import Entry, Recorder
    from trainer.loop.sentinel import Sentinel
    from trainer.process import process_group
    from trainer.process.deadline import Deadline

    rank, config = int(os.environ["RANK"]), configs.read(root / "config.yaml")
    process_group.join("cpu", f"file://{root}/meeting")
    rows = TokenDataset(token_file(dataset_folder(config), "train"))
    engine, run = build_engine(config, total_steps=1000), Run.of(config)
    attempt = run.new_attempt() if rank == 0 else None
    dist.barrier()
    total = 2 * count
    sentinel = Sentinel(run, config, rows, total, 0)
    tracker = None if attempt is None else Tracker(config, run, attempt, 0)
    meter = Meter(engine, config.cluster, total, 0)
    recorder = Recorder(meter, sentinel, Deadline(None), tracker, rows, bool)
    parts, done = Parts(), 0
    parts.timed(steps, "plan_step", "planning")
    parts.timed(TokenDataset, "__getitem__", "reading")
    parts.timed(engine, "pack", "packing")
    parts.timed(engine, "train_step", "all of the engine")
    parts.timed(engine, "optimizer_step", "optimizer")
    found: dict[str, list[dict[str, float]]] = {LINE: [], AHEAD: []}
    ways = {way: steps.Stepper(engine, rows, config.train, range(count)) for way in found}
    ways[LINE]._batches = map(ways[LINE].prepare, range(count))
    with ways[LINE], ways[AHEAD]:
        for step, (way, stepper) in product(range(count), ways.items()):
            dist.barrier()
            parts.take()
            with parts.of("step"):
                launched = stepper.train(step)
                with parts.of("gather, judge, log"):
                    done += 1
                    recorder.record(Entry(done, 1, launched, None, meter.peak_gb()))
            taken = parts.take()
            taken["wait for rows"] = launched.data_seconds
            taken["forward and backward"] = taken["all of the engine"] - taken["optimizer"]
            if step >= WARM:
                found[way].append(taken)
    if rank == 0:
        (root / "parts.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


def in_steps(count: int) -> Iterator[Result]:
    """Yields each part of real steps: read ahead, beside in line."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        prepare(root, count)
        config = recipe(root, count)
        base_model.materialise(config)
        configs.write(config, root / "config.yaml")
        common = {"WORLD_SIZE": str(RANKS), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        command = [sys.executable, "-W", "ignore", "-m", "tests.bench.bench_parts"]
        ranks = [
            subprocess.Popen(
                [*command, str(count), folder],
                env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=subprocess.DEVNULL,
            )
            for rank in range(RANKS)
        ]
        if codes := [code for rank in ranks if (code := rank.wait())]:
            sys.exit(f"a rank failed: exit {codes}")
        found = json.loads((root / "parts.json").read_text())
    line, ahead = (
        {part: 1e3 * median(step.get(part, 0.0) for step in found[way]) for part in (*MADE, *PARTS)}
        for way in (LINE, AHEAD)
    )
    case = f"2K/{BATCH}/ranks{RANKS}"
    for part in MADE:
        yield Result(case, f"{part}, by the thread", "ms", ahead[part], line[part], LINE)
    for part in PARTS:
        yield Result(case, part, "ms", ahead[part], line[part], LINE)


def rows_of_4b(count: int) -> Iterator[Result]:
    """Yields what a rank's host does for the rows of a step of the 4B recipe, in random tokens."""
    from trainer.batching.balance import plan_step
    from trainer.batching.dataset import TokenDataset
    from trainer.batching.packing import pack

    planner = Planner(configs.load("sft_4b", []))
    own, random = planner.own(), np.random.default_rng(1)
    assert own is not None
    degree, parts = own.setup.sequence_parallel, Parts()
    groups, budget = own.setup.ranks // degree, own.setup.tokens * degree
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for i, lengths in enumerate(planner.steps[:count]):
            tokens = list(lengths.values())
            file = Path(folder) / f"{i}.arrow"
            made = (Tokens(str(n), random.integers(0, 9, n, dtype=np.int32), 8, n) for n in tokens)
            write_tokens(file, made)
            rows = TokenDataset(file)
            with parts.of("planning"):
                plan = plan_step(dict(enumerate(tokens)), groups, budget, planner.shape)
            with parts.of("reading"):
                read = [[rows[row] for row in micro] for micro in plan.micro_batches[0]]
            with parts.of("packing"):
                for micro in read:
                    pack(micro, degree, 0)
            seconds.append(parts.take())
    for part in MADE:
        yield Result("sft_4b, host", part, "ms", 1e3 * median(step[part] for step in seconds))


def on_paper() -> Iterator[Result]:
    """Yields the planner's parts of the 4B recipe's step, as it is and eager."""
    for words in ([], ["train.compile=false", "train.fused_optimizer=false"]):
        own = Planner(configs.load("sft_4b", words)).own()
        assert own is not None
        case = f"sft_4b{', eager' if words else ''}, paper"
        for part, seconds in asdict(own.step).items():
            yield Result(case, part, "s", seconds)
        yield Result(case, "step", "s", own.step.total)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    publish("bench-parts", [*in_steps(count), *rows_of_4b(count), *on_paper()])


if __name__ == "__main__":
    if len(sys.argv) > 2:
        measure(Path(sys.argv[2]), int(sys.argv[1]))
    else:
        main()
