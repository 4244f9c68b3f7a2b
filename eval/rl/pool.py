"""The pool of problems that RL may train on: no duplicates, decontaminated, the overlap with SFT
rows marked.

The pool is a benchmark file, so an evaluation of it shows which problems give RL a signal.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from common import provenance
from common.errors import UserError
from common.files import (
    MANIFEST,
    read_json,
    sha256_file,
    sha256_json,
    whole_folder,
    write_json,
    write_jsonl,
    write_lock,
)
from common.records import Problem
from common.seeded_order import seeded_key
from data_prep.benchmarks import sets as benchmarks
from data_prep.duplicates import decontaminate, minhash
from data_prep.duplicates.benchmark_index import Index
from data_prep.output.folder import dataset_folder
from data_prep.output.write import HELD_OUT, ROWS, SPARE
from data_prep.tokenizer.prompt import all_turns
from eval.evaluate import PROBLEMS as PROBLEM_FILE
from eval.results.evaluation import RL_POOL
from trainer.run.folder import Run, is_complete, lock_of
from trainer.run.trained_from import dataset_identity

PROBLEMS = 2_000
"""Default number of problems in the pool: with 8 rollouts each, ten times the rollouts of the suite
``t0``.
"""
SFT = "sft"
"""Set name of the dataset's training rows when the pool's problems are compared with them."""


def build(run: Run, config: DictConfig, file: Path | None = None, count: int | None = None) -> Path:
    """Writes ``rl_pool.jsonl`` once, with one {id, problem, answer, in_sft} per line; returns the
    pool's folder.

    The problems come from ``file``, JSONL of {id, problem, answer}; without a file, from the good
    rows that the dataset did not select, or from its training rows if it selected all. Problems of
    a benchmark (of ``data.decontaminate``, of ``eval.sets``, or of an evaluation of the run) and of
    held-out rows are dropped by the rules that decontaminated the dataset. One of each group of
    near-duplicates is kept, and ``count`` (default ``PROBLEMS``) of the rest are chosen by hash.

    Raises UserError when ``count`` is below 1, when the dataset, its held-out rows, ``file`` or a
    benchmark is missing, when ``benchmarks.load_file`` cannot read ``file``, when no problem is
    left, and when the run's pool was built from another ``file`` or with another ``count``.
    """
    folder = run.rl_pool
    if count is not None and count < 1:
        raise UserError(f"--problems must be at least 1, not {count}")
    if file and not (file.is_file() and file.suffix == ".jsonl"):
        raise UserError(
            f"{file} is not a JSONL file: give one with an {{id, problem, answer}} per line"
        )
    with write_lock(lock_of(run.rl)):
        if not is_complete(folder):
            with whole_folder(folder) as partial:
                write_json(partial / MANIFEST, _fill(partial, run, config, file, count or PROBLEMS))
    made = read_json(folder / MANIFEST)
    for key, asked in {"file": sha256_file(file) if file else None, "problems": count}.items():
        if asked not in (None, made[key]):
            raise UserError(
                f"{folder} was built with {key} {made[key]}, not {asked}: leave out --pool and "
                "--problems, or move the folder away"
            )
    return folder


def _fill(
    folder: Path, run: Run, config: DictConfig, file: Path | None, count: int
) -> dict[str, Any]:
    """Writes the pool's file into ``folder``; returns the pool's manifest."""
    identity, dataset = dataset_identity(config), dataset_folder(config)
    if not (dataset / HELD_OUT).stat().st_size:
        raise UserError(
            f"{dataset} has no held-out rows to validate RL on: data.test_rows must be positive"
        )
    trained, spare = _rows(dataset), dataset / SPARE
    if file is None and spare.exists() and spare.stat().st_size:
        file = spare
    offered = [replace(p, set=RL_POOL) for p in (_read(file) if file else trained)]
    sets = benchmarks.expand([*config.data.decontaminate, *config.eval.sets])
    known = benchmarks.load(Path(config.eval.benchmarks), sets, None)
    barred = list(dict.fromkeys([*known, *_read(dataset / HELD_OUT), *_evaluated(run)]))

    clusters = minhash.clusters([_fingerprint(p) for p in (*offered, *trained)])
    index = Index.build(barred)
    candidates = {_name(p): found for p in offered if (found := index.candidates(all_turns(p)))}
    findings = decontaminate.judge(candidates, clusters, index)
    tainted = {clusters[name] for name in findings}
    clean = [p for p in offered if clusters[_name(p)] not in tainted]
    distinct = list({clusters[_name(p)]: p for p in reversed(clean)}.values())
    chosen = sorted(distinct, key=lambda p: seeded_key(config.data.seed, p.id))[:count]
    if not chosen:
        raise UserError(
            f"none of {len(offered):,} problems is left: all are in a benchmark or held out. Give "
            "others with --pool FILE"
        )
    learnt = {clusters[_name(p)] for p in trained}
    lines = [
        benchmarks.problem_line(vars(p)) | {"in_sft": clusters[_name(p)] in learnt} for p in chosen
    ]
    path = folder / f"{RL_POOL}.jsonl"
    write_jsonl(path, lines)
    return {
        "file": sha256_file(file) if file else None,
        "problems": count,
        "dataset": identity,
        "benchmarks": benchmarks.hashes(Path(config.eval.benchmarks), sets),
        "funnel": {
            "offered": len(offered),
            "dropped: in a benchmark or held out": len(offered) - len(clean),
            "dropped: duplicate problem": len(clean) - len(distinct),
            "dropped: beyond the problems asked for": len(distinct) - len(chosen),
            "kept": len(chosen),
        },
        "in_sft": sum(line["in_sft"] for line in lines),
        "contaminated": {
            name.removeprefix(f"{RL_POOL}/"): asdict(finding) for name, finding in findings.items()
        },
        "files": {path.name: sha256_file(path)},
        "versions": provenance.versions(),
        "git": provenance.git_commit(),
    }


def _read(file: Path) -> list[Problem]:
    """Returns the problems of a JSONL file; their set is the file's stem, which may be any name."""
    return benchmarks.load_file(file, file.stem)


def _evaluated(run: Run) -> list[Problem]:
    """Returns the problems of every evaluation that the run has begun, except for those of its
    pool.
    """
    files = (folder / PROBLEM_FILE for folder in run.evaluations)
    return [
        p
        for file in files
        if file.exists()
        for p in benchmarks.read_problems(file)
        if p.set != RL_POOL
    ]


def _rows(dataset: Path) -> list[Problem]:
    """Returns the problems of the dataset's training rows."""
    import pyarrow.parquet as pq

    path = dataset / ROWS
    # Datasets from before earlier turns existed lack that column.
    columns = [name for name in benchmarks.LINE if name in pq.read_schema(path).names]
    table = pq.read_table(path, columns=columns, filters=[("split", "=", "train")])
    return [Problem(set=SFT, **row) for row in table.to_pylist()]


def _name(problem: Problem) -> str:
    return f"{problem.set}/{problem.id}"


def _fingerprint(problem: Problem) -> minhash.Fingerprint:
    name = _name(problem)
    rank = (len(problem.problem), 0, name)
    return minhash.fingerprint(
        name, all_turns(problem), problem.answer, sha256_json(vars(problem)), rank
    )
