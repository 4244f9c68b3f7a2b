"""The data stage against merely tokenizing what it keeps, and against the straightforward datasets.map.

    python -m tests.bench.bench_data [ROWS]      (default 20,000; also a half and a quarter of it)

A generated source at realistic length: traces of lognormal length with a median of 13,000 characters, two a
record, one of them wrong. All three use the same processes. Peak memory is that of the process and its
children together, sampled.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from data_prep import chat, tokens, vocabulary
from data_prep.build import Settings, Workers, build
from data_prep.mapping import RowSettings
from data_prep.schema import Row
from data_prep.sources import Source
from tests.bench.table import Result, publish
from tests.data_prep.openr1 import clean, thought, trace

CORES = len(os.sched_getaffinity(0))
CHARS_PER_WORD = 5.7
MAX_LENGTH = 20_480


def write_source(path: Path, rows: int) -> None:
    """JSONL in the OpenR1 schema."""
    with path.open("w") as f:
        for i in range(rows):
            rng = random.Random(i)
            record = clean(i, words=1)
            thoughts = [thought(rng, round(rng.lognormvariate(9.47, 0.6) / CHARS_PER_WORD)) for _ in range(2)]
            record["generations"] = [trace("wrong", thoughts[0]), trace(record["answer"], thoughts[1])]
            for key in ("is_reasoning_complete", "correctness_math_verify"):
                record[key] = [True, True]
            record["correctness_math_verify"][0] = False
            record["finish_reasons"] = ["stop", "stop"]
            f.write(json.dumps(record) + "\n")


def settings(source: Path) -> Settings:
    return Settings(
        source=Source(str(source)),
        rows=RowSettings(
            columns=None, clean=None, verifier="correctness_math_verify", trace_choice="first", question_types=None,
            max_chars=60_000, max_length=MAX_LENGTH, min_think_tokens=100, seed=1,
        ),
        tokenizer="qwen3", model="", model_revision=None, benchmarks=Path("none"), decontaminate=(), train_rows=None,
        test_rows=200, max_bad_records=0,
    )  # fmt: skip


def measured(work: Callable[[], Any]) -> tuple[float, float]:
    """(seconds, peak GB of this process and its children above what it had before)."""
    me, peak, done = psutil.Process(), [0], threading.Event()

    def used() -> int:
        total = 0
        for process in [me, *me.children(recursive=True)]:
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return total

    def watch() -> None:
        while not done.wait(0.2):
            peak[0] = max(peak[0], used())

    before, watcher, begin = used(), threading.Thread(target=watch), time.perf_counter()
    watcher.start()
    work()
    seconds = time.perf_counter() - begin
    done.set()
    watcher.join()
    return seconds, max(0, peak[0] - before) / 1e9


_tokenizer: Any = None


def _load(folder: str) -> None:
    global _tokenizer
    _tokenizer = vocabulary.load(folder)


def _encode(text: str) -> int:
    return len(_tokenizer(text, add_special_tokens=False)["input_ids"])


def tokenize_only(dataset: Path) -> None:
    """Every kept row's text through the same tokenizer in as many processes, and nothing else."""
    import pyarrow.parquet as pq

    rows = pq.read_table(dataset / "rows.parquet", columns=["problem", "solution"]).to_pylist()
    texts = [chat.render(row["problem"], row["solution"]) for row in rows]
    context = multiprocessing.get_context("spawn")
    with context.Pool(CORES, initializer=_load, initargs=(str(dataset / "tokenizer"),)) as pool:
        for _ in pool.imap_unordered(_encode, texts, chunksize=16):
            pass


def straightforward(source: Path, target: Path, tokenizer: Path) -> None:
    """What one would write first: load_dataset, map (choose, encode), filter, save."""
    from datasets import load_dataset

    words = vocabulary.load(tokenizer)

    def work(record: dict[str, Any]) -> dict[str, Any]:
        flags = record["correctness_math_verify"]
        text = record["generations"][flags.index(True)] if True in flags else ""
        row = Row("", "", record["uuid"], 0, record["problem"], text, record["answer"])
        encoded = chat.encode(words, row)
        return {"solution": text, "input_ids": encoded.input_ids, "length": encoded.length}

    dataset = load_dataset("json", data_files=str(source), split="train", cache_dir=str(target / "cache"))
    dataset = dataset.map(work, num_proc=CORES).filter(lambda r: r["length"] <= MAX_LENGTH, num_proc=CORES)
    dataset.save_to_disk(str(target / "saved"))


def measure(count: int, root: Path, with_peers: bool) -> list[Result]:
    """Builds a dataset from ``count`` records below ``root``; with the peers on the same records."""
    source, data, case = root / "source.jsonl", root / "data", f"{count} rows"
    write_source(source, count)
    seconds, peak = measured(lambda: build(data, settings(source), Workers()))
    kept = tokens.read(data / "tokens/train.arrow").num_rows
    print(f"{case}: {seconds:.0f} s, {peak:.2f} GB, {kept} train rows", flush=True)
    results = [
        Result(case, "peak memory", "GB", peak, limit=3.0),
        Result(case, "rows per second", "1/s", count / seconds),
    ]
    if with_peers:
        floor, _ = measured(lambda: tokenize_only(data))
        peer, heap = measured(lambda: straightforward(source, root, data / "tokenizer"))
        results += [
            Result(case, "total time", "s", seconds, floor, "tokenizing the kept text", limit=floor * 1.5),
            Result(case, "total time", "s", seconds, peer, "datasets.map"),
            Result(case, "peak memory", "GB", peak, heap, "datasets.map"),
        ]
    return results


def main() -> None:
    """Measures a quarter, a half and all of ROWS."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    results = []
    for count in (rows // 4, rows // 2, rows):
        with tempfile.TemporaryDirectory() as folder:
            results += measure(count, Path(folder), with_peers=count == rows)
    publish("bench-data", results)


if __name__ == "__main__":
    main()
