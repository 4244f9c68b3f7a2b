"""The data stage against merely tokenizing what it keeps, and against the straightforward
datasets.map.

    python -m tests.bench.bench_data [ROWS]          default 20,000; half and a quarter, ours alone
    python -m tests.bench.bench_data ROWS --alone    ROWS only, ours alone

Every case is a fresh process, its start included, with as many workers as there are cores.
Processor time is summed over them; beside other work it says more than the time on the wall. Memory
is the highest sum, over the process and its workers, of the proportional set size (PSS): a page
that several share counts once. The source has a fixed share of duplicates and of benchmark problems
to find (``long_think``).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from tokenizers import Tokenizer

from common.files import read_json
from common.records import ROW, Row
from data_prep.build import Workers, build
from data_prep.rows.map_shard import RowSettings
from data_prep.settings import Settings
from data_prep.source.source import Source
from data_prep.tokenizer import chat, tokenizers
from data_prep.tokenizer.prompt import BARE
from tests.bench.long_think import SETS, write_benchmarks, write_source
from tests.bench.table import Result, publish

CORES = len(os.sched_getaffinity(0))
SPAWN = multiprocessing.get_context("spawn")
MAX_LENGTH = 20_480
SAMPLE_SECONDS = 0.25


@dataclass(frozen=True)
class Cost:
    """Time and memory of one case."""

    seconds: float
    processor: float
    """Seconds, over all its processes."""
    memory: float
    """Peak, in GB."""


def measured(work: Callable[[Path], None], root: Path) -> Cost:
    """Returns the cost of ``work``, which runs in its own process."""
    begin, used, peak = time.perf_counter(), _processor(), 0
    process = SPAWN.Process(target=work, args=(root,))
    process.start()
    while process.is_alive():
        peak = max(peak, _memory(psutil.Process(process.pid)))
        process.join(SAMPLE_SECONDS)
    if process.exitcode:
        raise RuntimeError(f"{work} failed")
    return Cost(time.perf_counter() - begin, _processor() - used, peak / 1e9)


def _processor() -> float:
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime


def _memory(process: psutil.Process) -> int:
    total = 0
    try:
        for each in [process, *process.children(recursive=True)]:
            total += each.memory_full_info().pss
    except psutil.NoSuchProcess:  # ended meanwhile
        pass
    return total


def ours(root: Path) -> None:
    """The data stage with every step of the 4B recipe."""
    with (root / "source.jsonl").open("rb") as f:
        rows = sum(1 for _ in f)
    settings = Settings(
        source=Source(str(root / "source.jsonl")),
        rows=RowSettings(
            columns=None,
            clean=None,
            verifier="correctness_math_verify",
            trace_choice="first",
            question_types=("math-word-problem", "MCQ"),
            max_chars=60_000,
            max_length=MAX_LENGTH,
            min_think_tokens=100,
            seed=1,
        ),
        tokenizer="model",
        model=str(root / "model"),
        model_revision=None,
        benchmarks=root / "benchmarks",
        decontaminate=SETS,
        train_rows=None,
        test_rows=min(200, rows // 10),
        max_bad_records=0,
    )
    build(root / "data", settings, Workers())


def tokenizing(root: Path) -> None:
    """The kept text through the same tokenizer, which uses all cores by itself, and nothing
    else.
    """
    import pyarrow.parquet as pq

    tokenizer = Tokenizer.from_file(str(root / "data" / "tokenizer" / "tokenizer.json"))
    with pq.ParquetFile(root / "data" / "rows.parquet") as rows:
        for batch in rows.iter_batches(256, columns=ROW):
            texts = [chat.render(Row(**row), BARE) for row in batch.to_pylist()]
            for encoded in tokenizer.encode_batch_fast(texts, add_special_tokens=False):
                _ = encoded.ids


def straightforward(root: Path) -> None:
    """Runs the obvious implementation: load_dataset, map (choose, encode), filter, save."""
    from datasets import disable_progress_bars, load_dataset

    disable_progress_bars()
    encoder = tokenizers.load(root / "data" / "tokenizer")

    def work(record: dict[str, Any]) -> dict[str, Any]:
        flags = record["correctness_math_verify"]
        text = record["generations"][flags.index(True)] if True in flags else ""
        row = Row("", "", record["uuid"], 0, record["problem"], text, record["answer"])
        encoded = chat.encode(encoder, [row], BARE)[0]
        return {"solution": text, "input_ids": encoded.input_ids, "length": encoded.length}

    dataset = load_dataset(
        "json",
        data_files=str(root / "source.jsonl"),
        split="train",
        cache_dir=str(root / "peer" / "cache"),
    )
    dataset = dataset.map(work, num_proc=CORES).filter(
        lambda r: r["length"] <= MAX_LENGTH, num_proc=CORES
    )
    dataset.save_to_disk(str(root / "peer" / "saved"))


def measure(count: int, root: Path, alone: bool) -> list[Result]:
    """Builds a dataset from ``count`` records below ``root``; with the peers on the same
    records.
    """
    case = f"{count:,} rows"
    write_source(root / "source.jsonl", count)
    write_benchmarks(root / "benchmarks")
    tokenizers.genuine_qwen3().save_pretrained(str(root / "model"))
    here = measured(ours, root)
    print(
        case,
        {k: v for k, v in read_json(root / "data" / "manifest.json")["funnel"].items() if v},
        flush=True,
    )
    results = [
        Result(case, "peak memory", "GB", here.memory, limit=3.0),
        Result(case, "total time", "s", here.seconds),
        Result(case, "processor time", "s", here.processor),
        Result(case, "rows per second", "1/s", count / here.seconds),
    ]
    if not alone:
        floor, name = measured(tokenizing, root), "tokenizing the kept text"
        results += [
            Result(
                case,
                "total time",
                "s",
                here.seconds,
                floor.seconds,
                name,
                limit=floor.seconds * 1.5,
            ),
            Result(case, "processor time", "s", here.processor, floor.processor, name),
        ]
        peer, name = measured(straightforward, root), "datasets.map"
        results += [
            Result(case, "total time", "s", here.seconds, peer.seconds, name),
            Result(case, "processor time", "s", here.processor, peer.processor, name),
            Result(case, "peak memory", "GB", here.memory, peer.memory, name),
        ]
    return results


def main() -> None:
    """Measures a quarter, a half and all of ROWS."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", nargs="?", type=int, default=20_000)
    parser.add_argument("--alone", action="store_true")
    options = parser.parse_args()
    results = []
    for share in (1,) if options.alone else (4, 2, 1):
        with tempfile.TemporaryDirectory() as folder:
            results += measure(
                options.rows // share, Path(folder), alone=options.alone or share > 1
            )
    publish("bench-data-alone" if options.alone else "bench-data", results)


if __name__ == "__main__":
    main()
