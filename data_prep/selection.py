"""Decisions that need every row in view: duplicates, benchmarks, the subset; each counted in the funnel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from data_prep import decontaminate, dedup, subset
from data_prep.mapping import Entry, Mapped
from data_prep.overlap import Index
from data_prep.schema import Problem


@dataclass(frozen=True)
class Chosen:
    """The dataset's rows, and why the others are not in it."""

    splits: dict[str, list[Entry]]
    """train and test, in the order they are written."""
    funnel: dict[str, int]
    """Step -> rows; ``source records`` is the sum of all others."""
    duplicates: dict[str, list[str]]
    """Row that stayed -> rows dropped as its duplicates."""
    contaminated: dict[str, dict[str, Any]]
    """Dropped row -> the benchmark item it matches, and the overlap."""


def select(
    total: Mapped,
    reasons: Sequence[str],
    problems: Sequence[Problem],
    train_rows: int | None,
    test_rows: int,
    seed: int,
) -> Chosen:
    """Chooses the rows; ``reasons`` orders the funnel's drops of single rows.

    Raises ValueError showing the funnel when fewer are left than asked for.
    """
    assert total.drops.keys() <= set(reasons), total.drops
    funnel = {"source records": total.records, "dropped: malformed": len(total.bad)}
    funnel |= {f"dropped: {reason}": total.drops[reason] for reason in reasons}
    entries = _once(total.entries)
    funnel["dropped: same row twice"] = len(total.entries) - len(entries)

    clusters = dedup.clusters([e.fingerprint for e in entries])
    unique = [e for e in entries if clusters[e.id] == e.id]
    funnel["dropped: duplicate problem"] = len(entries) - len(unique)
    duplicates: dict[str, list[str]] = {}
    for e in entries:
        if clusters[e.id] != e.id:
            duplicates.setdefault(clusters[e.id], []).append(e.id)

    candidates = {e.id: e.candidates for e in entries if e.candidates}
    findings = decontaminate.judge(candidates, clusters, Index.build(problems))
    # A problem is out when any wording of it was found in a benchmark.
    tainted = {clusters[row]: finding for row, finding in sorted(findings.items(), reverse=True)}
    clean = [e for e in unique if e.id not in tainted]
    funnel["dropped: in a benchmark"] = len(unique) - len(clean)

    count = len(clean) if train_rows is None else train_rows + test_rows
    if len(clean) < max(count, test_rows + 1):
        steps = "\n".join(f"  {rows:>9,}  {step}" for step, rows in funnel.items() if rows)
        wanted = test_rows + (train_rows or 1)
        raise ValueError(f"{len(clean):,} rows are left, data.train_rows + data.test_rows are {wanted:,}:\n{steps}")
    by_id = {e.id: e for e in clean}
    order = subset.choose([subset.Candidate(e.id, e.source, e.length) for e in clean], count, seed)
    funnel["dropped: beyond the rows asked for"] = len(clean) - count
    splits = {
        "train": [by_id[i] for i in order[test_rows:]],
        "test": [by_id[i] for i in order[:test_rows]],
    }
    funnel |= {f"kept: {split}": len(rows) for split, rows in splits.items()}
    assert total.records == sum(rows for step, rows in funnel.items() if step != "source records"), funnel
    taint = {row: asdict(finding) for row, finding in tainted.items()}
    return Chosen(splits, funnel, dict(sorted(duplicates.items())), dict(sorted(taint.items())))


def _once(entries: Sequence[Entry]) -> list[Entry]:
    """One entry of each row id, the same one whatever the order."""
    kept: dict[str, Entry] = {}
    for e in sorted(entries, key=lambda e: (e.fingerprint.rank, e.fingerprint.whole)):
        kept.setdefault(e.id, e)
    return list(kept.values())
