"""Downloads a benchmark set from the hub, at one commit, as the ``<set>.jsonl`` that
``benchmarks.sets`` reads.
"""

from __future__ import annotations

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
from common.text import nearest
from data_prep.benchmarks import sets
from data_prep.benchmarks.known import BENCHMARKS, Benchmark


def fetch(folder: Path, name: str) -> str:
    """Writes ``<name>.jsonl`` into ``folder`` and adds it to the folder's manifest. Returns the
    commit: the one that the manifest already has for the set, else the newest.

    Raises UserError when the set is unknown, cannot be downloaded, or does not fit the benchmark.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetGenerationError
    from httpx import HTTPError
    from huggingface_hub import HfApi

    benchmark = benchmark_of(name, folder)
    before = (
        read_json(folder / MANIFEST)
        if (folder / MANIFEST).exists()
        else {"files": {}, "sources": {}}
    )
    pinned = before["sources"].get(name, {}).get("revision")
    try:
        commit = HfApi().dataset_info(benchmark.hub, revision=pinned).sha
        assert commit is not None
        rows = load_dataset(benchmark.hub, benchmark.config, split=benchmark.split, revision=commit)
    except (OSError, ValueError, HTTPError, DatasetGenerationError) as e:
        raise UserError(
            f"benchmark {name} ({benchmark.hub}) cannot be read from the hub: {first_line(e)}: "
            f"try again, or put {name}.jsonl into {folder}"
        ) from e
    path = folder / f"{name}.jsonl"
    make_folder(folder)
    with file_errors(folder), TemporaryDirectory(dir=folder, prefix=".") as partial:
        try:
            write_jsonl(
                Path(partial) / path.name, [_problem(benchmark, *row) for row in enumerate(rows)]
            )
        except KeyError as e:
            raise UserError(
                f"benchmark {name}: {benchmark.hub} has no column {e} at commit {commit}: "
                f"put {name}.jsonl into {folder}"
            ) from e
        sets.load(Path(partial), [name], None)
        (Path(partial) / path.name).replace(path)
    before["files"][path.name] = sha256_file(path)
    before["sources"][name] = {
        "hub": benchmark.hub,
        "config": benchmark.config,
        "split": benchmark.split,
        "revision": commit,
    }
    write_json(folder / MANIFEST, before)
    return commit


def benchmark_of(name: str, folder: Path) -> Benchmark:
    """Returns the benchmark of that name. Raises UserError when no dataset on the hub is known for
    it.
    """
    if name not in BENCHMARKS:
        raise UserError(
            f"{name} is not a benchmark with a known hub dataset ({', '.join(BENCHMARKS)}): put "
            f"{name}.jsonl into {folder}{nearest(name, BENCHMARKS)}"
        )
    return BENCHMARKS[name]


def _problem(benchmark: Benchmark, number: int, row: dict[str, Any]) -> dict[str, str]:
    answer = str(row["answer"])
    if "####" in answer:  # GSM8K's answer is a solution that ends with a line "#### 72"
        answer = answer.rpartition("####")[2].strip().replace(",", "")
    solution = benchmark.solution_column
    return {
        "id": f"{benchmark.name}-{number}"
        if benchmark.id_column is None
        else str(row[benchmark.id_column]),
        "problem": row[benchmark.problem_column],
        "answer": answer,
        "source": f"hub:{benchmark.hub}",
    } | ({} if solution is None else {"solution": row[solution]})
