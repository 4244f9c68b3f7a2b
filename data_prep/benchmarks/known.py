"""The benchmarks that are known by name: size, form of their answers, and dataset on the hub."""

from __future__ import annotations

import re
from dataclasses import dataclass

ANYTHING = re.compile(r"(?s).*\S.*")
UP_TO_999 = re.compile(r"\d{1,3}")
NUMBER = re.compile(r"-?\d+(\.\d+)?")


@dataclass(frozen=True)
class Benchmark:
    """A set of problems with a known size: a file with another count is not that benchmark."""

    name: str
    """Name of the set, and of its file without ``.jsonl``."""
    problems: int
    """Number of problems."""
    hub: str
    """Dataset on the hub. Datasets of the same benchmark differ in wording, so a download's
    manifest records the commit, and results record the file's hash.
    """
    split: str
    answers: re.Pattern[str] = ANYTHING
    """Pattern of every answer."""
    config: str | None = None
    """The dataset's configuration, if it has several."""
    problem_column: str = "problem"
    id_column: str | None = "id"
    """None: the rows are numbered."""
    solution_column: str | None = None
    """Column of the worked solution, for a set whose problems serve as examples."""


_KNOWN = (
    Benchmark("aime2025", 30, "math-ai/aime25", "test", answers=UP_TO_999),
    Benchmark(
        "aime2026",
        30,
        "MathArena/aime_2026",
        "train",
        answers=UP_TO_999,
        id_column="problem_idx",
    ),
    Benchmark("amc2023", 40, "math-ai/amc23", "test", answers=NUMBER, problem_column="question"),
    Benchmark("aime2024", 30, "HuggingFaceH4/aime_2024", "train", answers=UP_TO_999),
    Benchmark("math500", 500, "HuggingFaceH4/MATH-500", "test", id_column="unique_id"),
    Benchmark(
        "gsm8k_test",
        1319,
        "openai/gsm8k",
        "test",
        answers=NUMBER,
        config="main",
        problem_column="question",
        id_column=None,
    ),
    Benchmark(
        "gsm8k_train",
        7473,
        "openai/gsm8k",
        "train",
        answers=NUMBER,
        config="main",
        problem_column="question",
        id_column=None,
        solution_column="answer",
    ),
)
BENCHMARKS = {benchmark.name: benchmark for benchmark in _KNOWN}
"""Name -> benchmark. Every other name is the user's own set."""
