"""The data stage: source -> rows -> tokens -> manifest, as one folder that is whole or absent.

Workers map the units of the source (``mapping``); what needs every row in view is decided here: duplicates,
benchmarks, the subset. No decision depends on the order of files, rows or workers.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from data_prep import benchmarks, chat, executors, mapping, provenance, selection, vocabulary, writing
from data_prep.files import MANIFEST, read_json, sha256_file, whole_folder, write_json, writer
from data_prep.mapping import Mapped, RowSettings
from data_prep.progress import progress
from data_prep.schema import Problem
from data_prep.sources import Source, Unit


@dataclass(frozen=True)
class Settings:
    """Everything that decides a dataset's content."""

    source: Source
    rows: RowSettings
    tokenizer: str
    """model, qwen3 or trained."""
    model: str
    """Base model whose tokenizer ``model`` stands for."""
    model_revision: str | None
    benchmarks: Path
    decontaminate: tuple[str, ...]
    """Benchmark sets whose problems may not be in the dataset."""
    train_rows: int | None
    test_rows: int
    max_bad_records: int


@dataclass(frozen=True)
class Workers:
    """How the work is spread; it never changes the result."""

    engine: str = "local"
    processes: int | None = None


HERE = Workers()


def build(folder: Path, settings: Settings, workers: Workers = HERE) -> bool:
    """Builds the dataset into ``folder``; returns False when it is there already.

    Raises ValueError when the folder holds a dataset of other settings, when a file or too many records are
    malformed, when the label audit finds a fault, or when fewer rows are left than asked for; nothing is left
    behind then.
    """
    units, identity = settings.source.open()
    recorded = _recorded(settings, identity)
    with writer(folder.with_name(f".{folder.name}.lock")):
        if (folder / MANIFEST).exists():
            _check_same(read_json(folder / MANIFEST)["settings"], recorded, folder)
            return False
        if folder.exists():
            raise ValueError(f"{folder} is in the way and holds no dataset: delete it or use data.name=NAME")
        sets = list(settings.decontaminate)
        problems = benchmarks.load(settings.benchmarks, sets, None) if sets else []
        with whole_folder(folder) as target:
            _build(target, folder.name, units, settings, recorded, problems, workers)
    return True


def _build(
    target: Path,
    name: str,
    units: list[Unit],
    settings: Settings,
    recorded: dict[str, Any],
    problems: list[Problem],
    workers: Workers,
) -> None:
    parts, words = target / "parts", target / "tokenizer"
    _tokenizer(settings, units).save_pretrained(str(words))
    benchmarks.write_problems(parts / "problems.jsonl", problems)
    index = parts / "problems.jsonl"
    work = partial(mapping.map_unit, settings=settings.rows, tokenizer=words, index=index, parts=parts)
    total = Mapped()
    with progress("source rows", sum(unit.rows for unit in units) or 1) as advance:
        for mapped in executors.run(work, list(enumerate(units)), workers.engine, workers.processes):
            total.merge(mapped)
            advance(mapped.records)
    _check_bad(total.bad, settings.max_bad_records)
    reasons = mapping.reasons(settings.rows)
    chosen = selection.select(total, reasons, problems, settings.train_rows, settings.test_rows, settings.rows.seed)
    writing.write(target, parts, chosen)
    writing.report(target, name, total, chosen)
    shutil.rmtree(parts)
    files = sorted(p for p in target.rglob("*") if p.is_file())
    write_json(
        target / MANIFEST,
        {
            "settings": recorded,
            "funnel": chosen.funnel,
            "bad_records": sorted(total.bad),
            "rows": {split: len(entries) for split, entries in chosen.splits.items()},
            "tokens": {split: sum(e.length for e in entries) for split, entries in chosen.splits.items()},
            "row_ids": {split: [e.id for e in entries] for split, entries in chosen.splits.items()},
            "duplicates": chosen.duplicates,
            "contaminated": chosen.contaminated,
            "files": {str(p.relative_to(target)): sha256_file(p) for p in files},
            "versions": provenance.versions(),
            "git": provenance.git_commit(),
        },
    )


def _recorded(settings: Settings, source: dict[str, Any]) -> dict[str, Any]:
    """The settings as the manifest keeps them: what decides the content, and nothing of where it lies."""
    values = asdict(settings) | {"source": source, "template": chat.template_hash()}
    values["benchmarks"] = benchmarks.hashes(settings.benchmarks, list(settings.decontaminate))
    del values["decontaminate"]
    if settings.tokenizer != "model":
        del values["model"], values["model_revision"]
    # As JSON reads it back.
    return json.loads(json.dumps(values))


def _tokenizer(settings: Settings, units: list[Unit]) -> Any:
    match settings.tokenizer:
        case "model":
            return vocabulary.from_model(settings.model, settings.model_revision)
        case "qwen3":
            return vocabulary.genuine_qwen3()
        case _:
            rows = (row for unit in units for row in mapping.text_rows(unit, settings.rows, Mapped()))
            return vocabulary.trained(text for row in rows for text in (row.problem, row.solution))


def _check_bad(bad: list[str], limit: int) -> None:
    if len(bad) > limit:
        shown = "\n  ".join(sorted(bad)[:10])
        raise ValueError(f"{len(bad):,} malformed records, data.max_bad_records is {limit:,}:\n  {shown}")


def _check_same(old: dict[str, Any], new: dict[str, Any], folder: Path) -> None:
    before, after = _flat(old), _flat(new)
    keys = sorted(k for k in {*before, *after} if before.get(k) != after.get(k))
    changed = [f"{k}: {before.get(k)} -> {after.get(k)}" for k in keys]
    if changed:
        raise ValueError(
            f"{folder} was built with other settings:\n  " + "\n  ".join(changed)
            + "\nname another dataset with data.name=NAME, or delete that folder"
        )  # fmt: skip


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
