"""Trains tiny runs through the real launcher and loop, with ranks forked from one process, where
verl is imported once.

    python -m tests.trainer.loop.tiny_runs FOLDER RANKS SEED ...

trains the recipe tiny on the dataset below FOLDER with these seeds of order and weights, and prints
each run's alarms.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.tokenizer import token_files
from tests.trainer.engine.ranks import forked
from trainer.loop import launcher, loop
from trainer.process.stop_signal import StopRequest
from trainer.recipe import load as configs
from trainer.run import step_metrics
from trainer.run.folder import Run
from trainer.run.frozen_config import check
from trainer.run.trained_from import dataset_identity


def train(overrides: Sequence[str], ranks: int = 1) -> tuple[Run, list[int | None]]:
    """Trains or resumes the recipe tiny; returns the run and the ranks' exit codes."""
    config = configs.load("tiny", [*overrides, f"train.ranks={ranks}"])
    run = check(config)
    with launcher._attempt(run, config, dataset_identity(config)) as attempt:
        codes = forked(ranks, _rank, run, attempt, config, ranks)
    return run, codes


def _rank(rank: int, run: Run, attempt: Any, config: Any, ranks: int) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    with attempt.log.open("a") as log:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(log.fileno(), stream.fileno())
    meeting = f"file://{(attempt.root / 'meeting').absolute()}"
    sys.exit(loop.train(run, attempt if rank == 0 else None, config, StopRequest(), meeting))


def garble(tokens: Path, rows: Sequence[int], seed: int) -> None:
    """Replaces the answers of these rows by random tokens, in a file of encoded rows."""
    import numpy as np
    import pyarrow as pa

    table = token_files.read(tokens)
    made, draw = table.to_pylist(), np.random.default_rng(seed)
    size = 1 + max(max(row["input_ids"]) for row in made)
    for i in rows:
        first = made[i]["prompt_len"]
        made[i]["input_ids"][first:] = draw.integers(0, size, made[i]["length"] - first).tolist()
    del table
    with token_files.writer(tokens.with_suffix(".new"), token_files.schema_of(made[0])) as sink:
        sink.write_table(pa.Table.from_pylist(made, token_files.schema_of(made[0])))
    tokens.with_suffix(".new").rename(tokens)


def lines(run: Run) -> list[str]:
    """Returns the run's alarms."""
    return [line for step in step_metrics.read(run) for line in step_metrics.alarm_lines(step)]


def main() -> None:
    os.chdir(sys.argv[1])
    for seed in sys.argv[3:]:
        words = [f"train.seed={seed}", f"model.init_seed={seed}", f"run.name=clean{seed}"]
        words += ["train.validate_every=20", "train.save_every=1000", "train.keep_last=1"]
        run, codes = train(words, int(sys.argv[2]))
        steps = step_metrics.read(run)
        print(
            f"seed {seed}: exit {codes}, {len(steps)} steps, {len(lines(run))} alarms", flush=True
        )
        print("\n".join(lines(run)), flush=True)


if __name__ == "__main__":
    main()
