"""How long a checkpoint keeps training waiting, against a blocking save of the same state.

    python -m tests.bench.bench_checkpoint [TIMES [WIDTH]]      (default 5 and 1024)

Two gloo ranks of one thread each train a random Qwen3 of 50 million parameters on the CPU, 600 MB
of state. The pause is the call plus what falls before the next optimizer step, on the slower rank;
the blocking save is the same code waited for: shards written, flushed, hashed and committed. Steps
go on while the shards are written.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from common.files import read_json, write_json
from data_prep.tokenizer import tokenizers
from tests.bench.table import Result, publish
from tests.trainer.engine.ranks import SUPERVISED, forked, rows
from trainer.process import process_group
from trainer.recipe import load as configs
from trainer.run import base_model
from trainer.run.folder import Attempt, Run

RANKS, WARM, QUIET = 2, 1, 3
SHARE = 0.25
"""Limit of the pause, as a share of a blocking save."""
MODEL = {
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 4,
    "head_dim": 64,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
}


def slowest(seconds: float) -> float:
    """The largest of the ranks' figures."""
    import torch.distributed as dist

    value = torch.tensor(seconds, dtype=torch.float64)
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return value.item()


def measure(rank: int, root: Path, count: int) -> None:
    """Saves in turn in the background and blocking, and times steps; rank 0 leaves
    ROOT/times.json.
    """
    import torch.distributed as dist

    from trainer.checkpoint.retention import Retention
    from trainer.checkpoint.saver import Saver
    from trainer.engine.build import build_engine
    from trainer.process.watchdog import Watchdog

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(RANKS)}
    process_group.join("cpu", f"file://{root}/meeting")
    engine = build_engine(configs.read(root / "config.yaml"), total_steps=1000)
    watchdog = Watchdog(10, Attempt(root).stacks(rank))
    saver = Saver(
        Run(root / "run"), engine, Retention(1, None, 0), watchdog, dist.new_group(backend="gloo")
    )
    mine = engine.pack(rows()[rank::RANKS])

    def step() -> float:
        begin = time.monotonic()
        with engine.train_mode():
            engine.train_step([mine], SUPERVISED).read()
        return slowest(time.monotonic() - begin)

    times: dict[str, list[float]] = {
        "pause": [],
        "blocking": [],
        "during": [],
        "alone": [],
        "save": [],
    }
    step()
    for i in range(WARM + count):
        alone = [step() for _ in range(QUIET)]
        begin = time.monotonic()
        saver.save(2 * i, {})
        pause = time.monotonic() - begin
        during = []
        while not slowest(saver.ended):
            during.append(step())
        save = time.monotonic() - begin
        begin = time.monotonic()
        saver.settle()
        pause = slowest(pause + time.monotonic() - begin)
        begin = time.monotonic()
        saver.save(2 * i + 1, {})
        saver.settle()
        blocking = slowest(time.monotonic() - begin)
        if i >= WARM:
            found = {
                "pause": [pause],
                "blocking": [blocking],
                "during": during,
                "alone": alone,
                "save": [save],
            }
            times = {name: values + found[name] for name, values in times.items()}
    if rank == 0:
        write_json(root / "times.json", times)
    dist.barrier()
    dist.destroy_process_group()


def prepare(root: Path, width: int) -> Any:
    """A frozen configuration and its random model below ``root``."""
    shape = [f"model.init.{key}={value}" for key, value in (MODEL | {"hidden_size": width}).items()]
    config = configs.load("tiny", [f"run.root={root}/runs", f"data.dir={root}/data", *shape])
    tokenizers.trained(["some text"]).save_pretrained(str(Path(config.verl.model.tokenizer_path)))
    base_model.materialise(config)
    configs.write(config, root / "config.yaml")
    return config


def main() -> None:
    os.environ |= {"GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": ""}
    parser = argparse.ArgumentParser()
    parser.add_argument("times", nargs="?", type=int, default=5)
    parser.add_argument("width", nargs="?", type=int, default=1024)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        prepare(root, options.width)
        if any(codes := forked(RANKS, measure, root, options.times)):
            sys.exit(f"a rank failed: {codes}")
        times = {
            name: statistics.median(values)
            for name, values in read_json(root / "times.json").items()
        }
        (newest,) = (root / "run" / "checkpoints").glob("step_*")
        megabytes = sum(p.stat().st_size for p in newest.iterdir()) / 1e6
    case = f"{megabytes:.0f}MB/ranks{RANKS}"
    blocking = times["blocking"]
    publish(
        "bench-checkpoint",
        [
            Result(
                case,
                "pause of a save",
                "s",
                times["pause"],
                blocking,
                "blocking save",
                limit=SHARE * blocking,
            ),
            Result(case, "step while writing", "s", times["during"], times["alone"], "step alone"),
            Result(case, "call to commit", "s", times["save"]),
        ],
    )
    if times["pause"] > SHARE * blocking:
        sys.exit(f"a save holds up training for more than {SHARE:.0%} of a blocking one")


if __name__ == "__main__":
    main()
