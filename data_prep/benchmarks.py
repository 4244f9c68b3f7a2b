"""Benchmark problems, read from a folder of ``<set>.jsonl`` files.

Evaluation takes its problems from here, and decontamination the texts to keep out of training.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.files import read_jsonl, sha256_file, write_jsonl
from data_prep.schema import Problem

EXPECTED = {"aime2025": 30, "aime2026": 30, "amc2023": 40, "aime2024": 30, "math500": 500, "gsm8k_test": 1319}
"""Problems of the sets whose size is known: a file with another count is not that benchmark."""


def load(folder: Path, sets: list[str], limit: int | None) -> list[Problem]:
    """The problems of each set in file order; the first ``limit`` of each set, or all for None.

    Raises ValueError naming the place and the remedy for a missing or empty file, a missing or non-text
    key, an id used twice, or a count that is not the benchmark's.
    """
    if not sets or len(set(sets)) < len(sets):
        raise ValueError(f"eval.sets={sets} must name at least one set, and each once")
    if limit is not None and limit < 1:
        raise ValueError(f"eval.limit must be positive or null, not {limit}")
    return [problem for name in sets for problem in _load_set(_file(folder, name), name)[:limit]]


def write_problems(path: Path, problems: list[Problem]) -> None:
    """Writes problems with their sets, for ``read_problems``."""
    write_jsonl(path, map(vars, problems))


def read_problems(path: Path) -> list[Problem]:
    """The problems that ``write_problems`` wrote."""
    return [Problem(**values) for values in read_jsonl(path)]


def hashes(folder: Path, sets: list[str]) -> dict[str, str]:
    """SHA-256 of each set's file, in hex. Raises ValueError when one is missing."""
    return {name: sha256_file(_file(folder, name)) for name in sets}


def text_fields(path: Path, keys: tuple[str, ...]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line number, object) of a JSONL file whose ``keys`` must all be text.

    Raises ValueError naming file, line and key of the first that is not.
    """
    with path.open("rb") as f:
        numbers = [number for number, line in enumerate(f, 1) if line.strip()]
    for number, value in zip(numbers, read_jsonl(path), strict=True):
        for key in keys:
            if key not in value:
                raise ValueError(f"{path}, line {number}: no key {key!r}; each line needs {', '.join(keys)}")
            if not isinstance(value[key], str):
                raise ValueError(f"{path}, line {number}: {key} must be text, not {value[key]!r}")
        yield number, value


def _load_set(path: Path, name: str) -> list[Problem]:
    problems: dict[str, Problem] = {}
    for number, value in text_fields(path, ("id", "problem", "answer")):
        if value["id"] in problems:
            raise ValueError(f"{path}, line {number}: id {value['id']!r} is used twice")
        problems[value["id"]] = Problem(value["id"], value["problem"], value["answer"], name)
    if not problems:
        raise ValueError(f"{path} is empty: it needs one {{id, problem, answer}} a line")
    if len(problems) != EXPECTED.get(name, len(problems)):
        raise ValueError(
            f"{path} has {len(problems)} problems, but {name} has {EXPECTED[name]}: "
            "complete the file (eval.limit takes the first ones), or give your own set another name"
        )
    return list(problems.values())


def _file(folder: Path, name: str) -> Path:
    path = folder / f"{name}.jsonl"
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder: name the one with {name}.jsonl as eval.benchmarks=DIR")
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in folder.glob("*.jsonl"))) or "no .jsonl file"
        raise ValueError(
            f"{path} does not exist ({folder} has {there}): choose among those with eval.sets=[..], "
            "or name another folder with eval.benchmarks=DIR"
        )
    return path
