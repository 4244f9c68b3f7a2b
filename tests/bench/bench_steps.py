"""Balance in the flesh: step time of our trainer against stock verl's, on the same rows in the same
order.

    python -m tests.bench.bench_steps [STEPS]      (default 12)

Two gloo ranks of one thread each on the CPU, fp32, a small random Qwen3 and lognormal row lengths
an eighth of those of ``bench_balance`` (median 750, sigma 0.8, clipped at 2K, which is also a
micro-batch). Stock verl gives each rank half of a step's rows as they come and waits for the slower
one; it also attends through a mask over the whole micro-batch, since its packed attention needs
flash-attn. Times are whole steps, data included.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from common.files import write_json
from common.records import Tokens
from data_prep.tokenizer import tokenizers
from tests.bench.table import Result, publish
from tests.conftest import lines
from tests.token_rows import write_tokens
from trainer.loop import launcher
from trainer.recipe import load as configs
from trainer.run.folder import Run
from trainer.run.trained_from import dataset_identity

LONGEST, MEDIAN, SIGMA = 2048, 750, 0.8
BATCH, WARM = 16, 2
RANKS = 2
SETTINGS = {
    "": (),
    "fused AdamW": ("run.name=fused", "train.fused_optimizer=true"),
    "compiled": ("run.name=compiled", "train.fused_optimizer=true", "train.compile=true"),
}
MODEL = {
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 4,
    "head_dim": 64,
    "max_position_embeddings": LONGEST,
}


def recipe(root: Path, count: int, *settings: str) -> Any:
    """The configuration of a run below ``root`` with these settings."""
    return configs.load(
        "tiny",
        [
            f"run.root={root}/runs",
            f"data.dir={root}/data",
            f"data.max_length={LONGEST}",
            "train.epochs=1",
            f"train.batch_size={BATCH}",
            f"train.max_steps={count}",
            f"train.max_tokens_per_gpu={LONGEST}",
            f"train.ranks={RANKS}",
            *(f"model.init.{key}={value}" for key, value in MODEL.items()),
            *settings,
        ],
    )


def prepare(root: Path, count: int) -> None:
    """Leaves the dataset, of random tokens, below ``root``."""
    folder, random = root / "data" / "tiny", np.random.default_rng(1)
    words = tokenizers.trained(["some text"])
    words.save_pretrained(str(folder / "tokenizer"))
    lengths = (
        np.clip(random.lognormal(np.log(MEDIAN), SIGMA, BATCH * count), 16, LONGEST)
        .astype(int)
        .tolist()
    )
    for split, kept in (("train", lengths), ("test", lengths[:2])):
        rows = (
            Tokens(str(i), random.integers(0, len(words), n, dtype=np.int32), 8, n)
            for i, n in enumerate(kept)
        )
        write_tokens(folder / "tokens" / f"{split}.arrow", rows)
    write_json(folder / "manifest.json", {})


def steps(config: Any) -> list[dict[str, Any]]:
    """Our steps after the first ones."""
    run = Run.of(config)
    if code := launcher.train(run, config, dataset_identity(config)):
        sys.exit(f"training failed: exit {code}")
    return lines(run.metrics)[WARM:]


def stock(config: Any, root: Path) -> list[float]:
    """Seconds of each of stock verl's steps after the first."""
    configs.write(config, root / "config.yaml")
    out = root / "stock.jsonl"
    common = {
        "WORLD_SIZE": str(RANKS),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29517",
        "OMP_NUM_THREADS": "1",
    }
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.stock_verl", str(root / "config.yaml"), str(out)],
            env=os.environ
            | common
            | {"RANK": str(rank), "LOCAL_RANK": str(rank), "GLOO_SOCKET_IFNAME": "lo"},
        )
        for rank in range(RANKS)
    ]
    if codes := [code for rank in ranks if (code := rank.wait())]:
        sys.exit(f"stock verl failed: exit {codes}")
    at = [step["at"] for step in lines(out)]
    return [b - a for a, b in pairwise(at)]


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 12
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.sched_setaffinity(
            0, sorted(os.sched_getaffinity(0))[:RANKS]
        )  # one thread a rank, ours too
        prepare(root, count)
        plain = recipe(root, count)
        ours = {name: steps(recipe(root, count, *words)) for name, words in SETTINGS.items()}
        theirs = stock(plain, root)
    peer, case = sum(theirs[WARM - 1 :]), f"2K/{BATCH}/ranks{RANKS}/sp1"
    results = []
    for name, timed in ours.items():
        what = f"time of {count - WARM} steps{name and ', '}{name}"
        seconds = sum(step["seconds"] for step in timed)
        results.append(Result(case, what, "s", seconds, peer, "stock verl (masked SDPA)"))
    balances = [step["balance"] for step in ours[""]]
    results.append(Result(case, "balance", "mean/max", sum(balances) / len(balances)))
    publish("bench-steps", results)


if __name__ == "__main__":
    main()
