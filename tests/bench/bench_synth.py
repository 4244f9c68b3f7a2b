"""The eight filters of generated problems, as the data stage runs them, and its fuzzy deduplication
against the plain blocked cosine of scikit-learn.

    python -m tests.bench.bench_synth BENCHMARKS [ROWS [PEER_ROWS]]   (default 83,000 and 20,000)

BENCHMARKS is a folder with gsm8k_train.jsonl and gsm8k_test.jsonl. The records are GSM8K's training
rows and mixtures of them: half of one problem's sentences and half of another's, with other numbers
and names, so that they share wording as one model's problems do, and with faults in one of ten.
Every case is a process of its own; the memory is the highest sum of proportional set sizes over it
and its workers (``bench_data``).
"""

from __future__ import annotations

import argparse
import json
import random
import re
import tempfile
from functools import partial
from pathlib import Path

from common.files import read_json, write_jsonl
from data_prep.build import Workers, build
from data_prep.duplicates import tfidf
from data_prep.duplicates.normalise_text import words
from data_prep.rows.map_shard import RowSettings
from data_prep.settings import Settings
from data_prep.source.source import Source
from data_prep.synth.generation import COLUMNS, Generation
from data_prep.synth.local_model import Local
from tests.bench.bench_data import measured
from tests.bench.table import Result, publish

SECONDS, GIGABYTES = 300.0, 3.0
NAMES = [
    "Amara",
    "Boris",
    "Chen",
    "Dalia",
    "Emeka",
    "Fatima",
    "Goran",
    "Hana",
    "Imani",
    "Jorge",
    "Kiri",
    "Leila",
    "Mateo",
    "Nadia",
    "Oren",
    "Priya",
]
FAULTS = (
    lambda solution: solution.replace("<<", "(").replace(">>", ")"),
    lambda solution: re.sub(r"=(\d+)>>", lambda m: f"={int(m[1]) + 1}>>", solution, count=1),
    lambda solution: f"Certainly! {solution}",
)


def texts(benchmarks: Path, count: int) -> list[str]:
    """Problems."""
    rng = random.Random(0)
    rows = [json.loads(line)["problem"] for line in (benchmarks / "gsm8k_train.jsonl").open()]
    halves = [re.split(r"(?<=[.?]) +", row) for row in rows]

    def mixture() -> str:
        one, other = rng.choice(halves), rng.choice(halves)
        text = " ".join(one[: (len(one) + 1) // 2] + other[len(other) // 2 :])
        text = re.sub(r"\d+", lambda m: str(rng.randint(2, 10 ** len(m[0]))), text)
        return re.sub(r"(?<=[a-z] )[A-Z][a-z]{3,}", lambda _: rng.choice(NAMES), text)

    return (rows + [mixture() for _ in range(count - len(rows))])[:count]


def write_replies(benchmarks: Path, folder: Path, count: int) -> None:
    """The rollouts of a local model that answered each prompt with one problem."""
    rng = random.Random(1)
    rows = [json.loads(line) for line in (benchmarks / "gsm8k_train.jsonl").open()]

    def rollouts():
        for i, problem in enumerate(texts(benchmarks, count)):
            row = rows[i % len(rows)]
            solution = row["solution"].split("\n####")[0]
            if rng.random() < 0.1:
                solution = rng.choice(FAULTS)(solution)
            text = (
                f"<problem>{problem}</problem>\n<solution>{solution}</solution>\n"
                f"<answer>{row['answer']}</answer>"
            )
            yield {
                "key": ["synth", f"{i:06d}", 0],
                "text": text,
                "tokens": 300,
                "finish_reason": "stop",
            }

    write_jsonl(folder / "rollouts.jsonl", rollouts())


def ours(root: Path, benchmarks: Path, count: int) -> None:
    """The data stage, from replies to a dataset."""
    generation = Generation(
        folder=root / "generated",
        seeds=benchmarks / "gsm8k_train.jsonl",
        seed_rows=200,
        examples=5,
        problems=count,
        per_request=1,
        backend="local",
        model="bench",
        temperature=1.0,
        max_tokens=512,
        seed=1,
    )
    rows = RowSettings(
        columns=COLUMNS,
        clean="gsm8k",
        verifier="",
        trace_choice="first",
        question_types=None,
        max_chars=8_000,
        max_length=4_096,
        min_think_tokens=1,
        seed=1,
        answer_style="answer_is",
        filters="synthetic",
    )
    settings = Settings(
        source=Source("synthetic", generation=generation, backend=Local(lambda *_: None)),
        rows=rows,
        tokenizer="qwen3",
        model="",
        model_revision=None,
        benchmarks=benchmarks,
        decontaminate=("gsm8k_test",),
        train_rows=None,
        test_rows=min(200, count // 10),
        max_bad_records=0,
    )
    build(root / "data", settings, Workers())


def prefix_filtered(root: Path, benchmarks: Path, count: int) -> None:
    """Our fuzzy deduplication of ``count`` problems."""
    stands = tfidf.nearest(texts(benchmarks, count))
    (root / "ours.json").write_text(json.dumps(stands))


def blocked_cosine(root: Path, benchmarks: Path, count: int) -> None:
    """Runs the obvious implementation: each block's cosines with all rows, and the same choice of
    the rows to keep.
    """
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.metrics.pairwise import linear_kernel

    vectors = TfidfVectorizer(analyzer=words).fit_transform(texts(benchmarks, count))
    stands = np.arange(count)
    for start in range(0, count, tfidf.BLOCK):
        block = linear_kernel(vectors[start : start + tfidf.BLOCK], vectors[: start + tfidf.BLOCK])
        for i, cosines in enumerate(block, start):
            alike = np.flatnonzero(cosines[:i] >= tfidf.ALIKE)
            if len(alike := alike[stands[alike] == alike]):
                stands[i] = alike[0]
    (root / "peer.json").write_text(json.dumps(stands.tolist()))


def main() -> None:
    """Measures the data stage on ROWS and both deduplications on PEER_ROWS."""
    parser = argparse.ArgumentParser()
    parser.add_argument("benchmarks", type=Path)
    parser.add_argument("rows", nargs="?", type=int, default=83_000)
    parser.add_argument("peer_rows", nargs="?", type=int, default=20_000)
    options = parser.parse_args()
    benchmarks, case = options.benchmarks.absolute(), f"{options.rows:,} rows"
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "generated").mkdir()
        write_replies(benchmarks, root / "generated", options.rows)
        whole = measured(partial(ours, benchmarks=benchmarks, count=options.rows), root)
        print(
            {k: v for k, v in read_json(root / "data" / "manifest.json")["funnel"].items() if v},
            flush=True,
        )
        both = {"benchmarks": benchmarks, "count": options.peer_rows}
        mine = measured(partial(prefix_filtered, **both), root)
        peer = measured(partial(blocked_cosine, **both), root)
        assert read_json(root / "ours.json") == read_json(root / "peer.json"), (
            "other verdicts than the peer's"
        )
    some, name = f"{options.peer_rows:,} problems", "blocked cosine, scikit-learn"
    publish(
        "bench-synth",
        [
            Result(case, "eight filters", "s", whole.seconds, limit=SECONDS),
            Result(case, "peak memory", "GB", whole.memory, limit=GIGABYTES),
            Result(case, "processor time", "s", whole.processor),
            Result(some, "fuzzy dedup", "s", mine.seconds, peer.seconds, name),
            Result(some, "fuzzy dedup memory", "GB", mine.memory, peer.memory, name),
        ],
    )


if __name__ == "__main__":
    main()
