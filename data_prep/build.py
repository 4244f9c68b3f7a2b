"""The data stage: source -> rows -> tokens -> manifest, as one folder that is either complete or
absent.

Workers map the units of the source (``rows.map_shard``); decisions that need every row (duplicates,
benchmarks, the subset) are made here (``output.select``). No decision depends on the order of
files, rows or workers.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from common import provenance
from common.errors import UserError
from common.files import MANIFEST, read_json, sha256_file, whole_folder, write_json, write_lock
from common.progress import progress
from common.records import Problem
from data_prep import parallel
from data_prep.benchmarks import sets as benchmarks
from data_prep.output import report, select, write
from data_prep.output.number_facts import number_facts
from data_prep.rows import map_shard
from data_prep.rows.map_shard import Entry, Mapped, RowSettings
from data_prep.settings import Settings, check_same, recorded
from data_prep.source.shards import Unit, by_place
from data_prep.tokenizer import tokenizers

FAULTS_SHOWN = 10
"""Maximum number of kinds of malformed records that an error shows."""
_PLACE = re.compile(r", row [0-9]+")


@dataclass(frozen=True)
class Workers:
    """How the work is distributed; does not change the result."""

    engine: str = "local"
    processes: int | None = None


HERE = Workers()


def build(
    folder: Path,
    settings: Settings,
    workers: Workers = HERE,
    facts: Mapping[str, Any] | None = None,
) -> bool:
    """Builds the dataset into ``folder``. Returns False if it exists already.

    The manifest also gets ``facts``, such as the licence, which do not determine the content: a
    dataset with other facts is the same dataset.

    Raises UserError when the folder holds a dataset with other settings, a file or too many records
    are malformed, or fewer rows are left than requested, and ValueError when the label audit finds
    a fault; no partial dataset is left behind then.
    """
    if _built(folder, settings):
        return False
    with write_lock(folder.with_name(f".{folder.name}.lock")):
        if _built(folder, settings):  # another process may have built it in the meantime
            return False
        if folder.exists():
            raise UserError(
                f"{folder} exists but holds no dataset: delete it, or use another name "
                "(data.name=NAME)"
            )
        units, source = settings.source.open()
        identity = recorded(settings, source)
        sets = list(settings.decontaminate)
        problems = benchmarks.load(settings.benchmarks, sets, None) if sets else []
        if settings.source.generation is not None:
            problems += settings.source.generation.seed_problems
        with whole_folder(folder) as target:
            # Absolute, for workers with another working directory.
            manifest = _build(target.absolute(), folder.name, units, settings, problems, workers)
            write_json(target / MANIFEST, {"settings": identity, **(facts or {}), **manifest})
    return True


def _built(folder: Path, settings: Settings) -> bool:
    """Returns whether the dataset exists. Raises UserError when it was built with other
    settings.
    """
    if not (folder / MANIFEST).exists():
        return False
    old = read_json(folder / MANIFEST)["settings"]
    source = old["source"] if settings.source.holds(old["source"]) else settings.source.open()[1]
    check_same(old, recorded(settings, source), folder)
    return True


def _build(
    target: Path,
    name: str,
    units: list[Unit],
    settings: Settings,
    problems: list[Problem],
    workers: Workers,
) -> dict[str, Any]:
    """Writes everything in ``target`` except the manifest. Returns the manifest's content without
    the settings.
    """
    parts, words = target / "parts", target / "tokenizer"
    _tokenizer(settings, units).save_pretrained(str(words))
    benchmarks.write_problems(parts / "problems.jsonl", problems)
    index = parts / "problems.jsonl"
    work = partial(
        map_shard.map_unit, settings=settings.rows, tokenizer=words, index=index, parts=parts
    )
    total = Mapped()
    with progress("source rows", sum(unit.rows for unit in units)) as advance:
        for mapped in parallel.run(work, list(enumerate(units)), workers.engine, workers.processes):
            total.merge(mapped)
            advance(mapped.records)
    total.bad = by_place(total.bad)
    _check_bad(total.bad, settings.max_bad_records)
    reasons = map_shard.reasons(settings.rows)
    chosen = select.select(
        total,
        reasons,
        problems,
        settings.train_rows,
        settings.test_rows,
        settings.rows.seed,
        nearest=partial(_nearest, parts) if settings.rows.filters == "synthetic" else None,
        spare_share=settings.spare_share,
    )
    write.write(target, parts, chosen)
    numbers = None
    if settings.rows.answer_style == "answer_is":
        kept = (e for entries in chosen.splits.values() for e in entries)
        counts = {e.id: total.operations.get(e.fingerprint.whole, 0) for e in kept}
        numbers = number_facts(target / write.ROWS, counts)
    report.write(target, name, parts, total, chosen, settings.rows.asked, numbers)
    shutil.rmtree(parts)
    files = sorted(p for p in target.rglob("*") if p.is_file())
    return {
        "funnel": chosen.funnel,
        "bad_records": total.bad,
        "rows": {split: len(entries) for split, entries in chosen.splits.items()},
        "tokens": {
            split: sum(e.length for e in entries) for split, entries in chosen.splits.items()
        },
        "row_ids": {split: [e.id for e in entries] for split, entries in chosen.splits.items()},
        "duplicates": chosen.duplicates,
        "contaminated": chosen.contaminated,
        **({"numbers": numbers} if numbers else {}),
        "files": {str(p.relative_to(target)): sha256_file(p) for p in files},
        "versions": provenance.versions(),
        "git": provenance.git_commit(),
    }


def _tokenizer(settings: Settings, units: list[Unit]) -> Any:
    match settings.tokenizer:
        case "model":
            return tokenizers.from_model(settings.model, settings.model_revision)
        case "qwen3":
            return tokenizers.genuine_qwen3()
        case _:
            return tokenizers.trained(_texts(units, settings.rows))


def _texts(units: list[Unit], settings: RowSettings) -> Iterator[str]:
    with progress("rows read for the tokenizer", sum(unit.rows for unit in units)) as advance:
        for unit in units:
            for row in map_shard.text_rows(unit, settings, Mapped()):
                yield row.problem
                yield row.solution
            advance(unit.rows)


def _nearest(parts: Path, entries: Sequence[Entry]) -> list[int]:
    from data_prep.duplicates import tfidf

    return tfidf.nearest(
        [
            text
            for table in write.gather(parts, entries)
            for text in table.column("problem").to_pylist()
        ]
    )


def _check_bad(bad: list[str], limit: int) -> None:
    if len(bad) > limit:
        alike: dict[str, list[str]] = {}
        for fault in bad:
            alike.setdefault(_PLACE.sub("", fault), []).append(fault)
        shown = "\n  ".join(
            first + (f" (and {len(others):,} more like it)" if others else "")
            for first, *others in list(alike.values())[:FAULTS_SHOWN]
        )
        raise UserError(
            f"{len(bad):,} records are malformed, more than "
            f"data.max_bad_records={limit}:\n  {shown}"
        )
