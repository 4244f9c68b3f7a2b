"""Downloads a benchmark set from the hub, at one commit, as the ``<set>.jsonl`` that
``benchmarks.sets`` reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from common.errors import UserError, first_line
from common.files import (
    MANIFEST,
    file_errors,
    make_folder,
    read_json,
    sha256_file,
    write_json,
    write_jsonl,
)
from data_prep.benchmarks import sets


@dataclass(frozen=True)
class Source:
    """A set's dataset on the hub and the names of its columns; without ``id`` the rows are
    numbered.
    """

    name: str
    split: str
    problem: str = "problem"
    id: str = "id"
    config: str | None = None


SOURCES = {
    "aime2024": Source("HuggingFaceH4/aime_2024", "train"),
    "aime2025": Source("math-ai/aime25", "test"),
    "aime2026": Source("MathArena/aime_2026", "train", id="problem_idx"),
    "amc2023": Source("math-ai/amc23", "test", problem="question"),
    "math500": Source("HuggingFaceH4/MATH-500", "test", id="unique_id"),
    "gsm8k_test": Source("openai/gsm8k", "test", problem="question", id="", config="main"),
}
"""Hub datasets of one benchmark differ in wording, so the manifest records the commit and results
the file's hash.
"""


def fetch(folder: Path, name: str) -> str:
    """Writes ``<name>.jsonl`` into ``folder`` and adds it to the folder's manifest. Returns the
    commit: the one that the manifest already has for the set, else the newest.

    Raises UserError when the set is unknown, cannot be downloaded, or does not fit the benchmark.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetGenerationError
    from httpx import HTTPError
    from huggingface_hub import HfApi

    if name not in SOURCES:
        known = ", ".join(SOURCES)
        raise UserError(
            f"{name} is not on the hub as far as known ({known}): put {name}.jsonl in {folder}"
        )
    source = SOURCES[name]
    before = (
        read_json(folder / MANIFEST)
        if (folder / MANIFEST).exists()
        else {"files": {}, "sources": {}}
    )
    pinned = before["sources"].get(name, {}).get("revision")
    try:
        commit = HfApi().dataset_info(source.name, revision=pinned).sha
        assert commit is not None
        rows = load_dataset(source.name, source.config, split=source.split, revision=commit)
    except (OSError, ValueError, HTTPError, DatasetGenerationError) as e:
        raise UserError(
            f"benchmark {name} ({source.name}) cannot be read from the hub: {first_line(e)}"
        ) from e
    path = folder / f"{name}.jsonl"
    make_folder(folder)
    with file_errors(folder), TemporaryDirectory(dir=folder, prefix=".") as partial:
        try:
            write_jsonl(
                Path(partial) / path.name, [_problem(name, *row, source) for row in enumerate(rows)]
            )
        except KeyError as e:
            raise UserError(
                f"benchmark {name}: {source.name} has no column {e} at commit {commit}"
            ) from e
        sets.load(Path(partial), [name], None)
        (Path(partial) / path.name).replace(path)
    before["files"][path.name] = sha256_file(path)
    before["sources"][name] = {
        "hub": source.name,
        "config": source.config,
        "split": source.split,
        "revision": commit,
    }
    write_json(folder / MANIFEST, before)
    return commit


def _problem(name: str, number: int, row: dict[str, Any], source: Source) -> dict[str, str]:
    answer = str(row["answer"])
    return {
        "id": str(row[source.id]) if source.id else f"{name}-{number}",
        "problem": row[source.problem],
        # GSM8K's answer is a solution that ends with a line "#### 72".
        "answer": answer.rpartition("####")[2].strip().replace(",", "")
        if "####" in answer
        else answer,
        "source": f"hub:{source.name}",
    }
