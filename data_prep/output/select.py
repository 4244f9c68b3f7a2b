"""Decisions that need every row: duplicates, benchmarks, the subset; each counted in the funnel."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from common.errors import UserError
from common.records import Problem
from common.seeded_order import seeded_key
from data_prep.duplicates import decontaminate, minhash
from data_prep.duplicates.benchmark_index import Index
from data_prep.output import stratify
from data_prep.output.clashes import SEVERAL_ANSWERS, told_apart, without_disputed
from data_prep.rows.map_shard import SAMPLES, Entry, Mapped
from data_prep.synth.prompts import SEEDS

Nearest = Callable[[Sequence[Entry]], list[int]]
"""Returns, for each row in order of rank, the index of its cluster representative (itself or an
earlier row).
"""

BEYOND = "beyond the rows asked for"


@dataclass(frozen=True)
class Chosen:
    """The dataset's rows, and why the others were dropped."""

    splits: dict[str, list[Entry]]
    """``train`` and ``test`` -> rows, in the order written."""
    spare: list[Entry]
    """Good rows beyond the number requested, in the seeded order."""
    funnel: dict[str, int]
    """Step -> number of rows; ``source records`` is the sum of all others."""
    duplicates: dict[str, list[str]]
    """Kept row -> rows dropped as its duplicates, by id."""
    contaminated: dict[str, dict[str, Any]]
    """Dropped row -> its ``decontaminate.Finding`` as a dict: the benchmark item it matches, and
    the overlap.
    """
    dropped: dict[str, list[Entry]]
    """Reason -> at most SAMPLES of the rows dropped for it here."""


def select(
    total: Mapped,
    reasons: Sequence[str],
    problems: Sequence[Problem],
    train_rows: int | None,
    test_rows: int,
    seed: int,
    nearest: Nearest | None = None,
    spare_share: float = 0.0,
) -> Chosen:
    """Chooses the rows; ``reasons`` gives the funnel's order of single-row drops. Without
    ``train_rows``, all good rows are chosen except for ``spare_share`` of those that are not held
    out.

    Near-duplicate problems are found by MinHash, or by ``nearest`` among problems of different
    text. Raises UserError showing the funnel when fewer rows are left than requested.
    """
    assert total.drops.keys() <= set(reasons), total.drops
    funnel = {"source records": total.records, "dropped: malformed": len(total.bad)}
    funnel |= {f"dropped: {reason}": total.drops[reason] for reason in reasons}
    agreed, disputed = without_disputed(total.entries)
    entries, again = _once(told_apart(agreed))
    clusters = minhash.clusters([e.fingerprint for e in entries], near=nearest is None)
    unique, copies = _parted(entries, lambda e: clusters[e.id] == e.id)
    dropped = {SEVERAL_ANSWERS: disputed, "same row twice": again, "duplicate problem": copies}
    if nearest is not None:
        stands = {e.id: unique[i].id for e, i in zip(unique, nearest(unique), strict=True)}
        clusters = {row: stands[best] for row, best in clusters.items()}
        unique, dropped["near-duplicate problem"] = _parted(unique, lambda e: stands[e.id] == e.id)
    duplicates: dict[str, list[str]] = defaultdict(list)
    for e in entries:
        if clusters[e.id] != e.id:
            duplicates[clusters[e.id]].append(e.id)

    candidates = {e.id: e.candidates for e in entries if e.candidates}
    findings = decontaminate.judge(candidates, clusters, Index.build(problems))
    # A cluster is dropped if any of its rows was found in a benchmark.
    tainted = {clusters[row]: finding for row, finding in sorted(findings.items(), reverse=True)}
    clean, leaked = _parted(unique, lambda e: e.id not in tainted)
    if any(problem.set == SEEDS for problem in problems):
        leaked, dropped["like a seed"] = _parted(leaked, lambda e: tainted[e.id].set != SEEDS)
    dropped["in a benchmark"] = leaked
    funnel |= {f"dropped: {reason}": len(rows) for reason, rows in dropped.items()}

    left = int(spare_share * max(0, len(clean) - test_rows))
    count = len(clean) - left if train_rows is None else train_rows + test_rows
    if len(clean) < max(count, test_rows + 1):
        steps = "\n".join(f"  {rows:>9,}  {step}" for step, rows in funnel.items() if rows)
        wanted = test_rows + (train_rows or 1)
        keys = "data.test_rows" if train_rows is None else "data.train_rows + data.test_rows"
        raise UserError(
            f"{len(clean):,} rows are left, but {keys} need {wanted:,}: ask for fewer, or add "
            f"source rows. Rows by step:\n{steps}"
        )
    by_id = {e.id: e for e in clean}
    order = stratify.choose(
        [stratify.Candidate(e.id, e.source, e.length) for e in clean], count, seed
    )
    taken = set(order)
    spare = sorted((e for e in clean if e.id not in taken), key=lambda e: seeded_key(seed, e.id))
    dropped[BEYOND] = spare
    funnel[f"dropped: {BEYOND}"] = len(clean) - count
    splits = {
        "train": [by_id[i] for i in order[test_rows:]],
        "test": [by_id[i] for i in order[:test_rows]],
    }
    funnel |= {f"kept: {split}": len(rows) for split, rows in splits.items()}
    assert total.records == sum(
        rows for step, rows in funnel.items() if step != "source records"
    ), funnel
    taint = {row: asdict(finding) for row, finding in tainted.items()}
    for reason, rows in dropped.items():
        dropped[reason] = heapq.nsmallest(SAMPLES, rows, key=lambda e: seeded_key(seed, e.id))
    return Chosen(
        splits,
        spare,
        funnel,
        dict(sorted(duplicates.items())),
        dict(sorted(taint.items())),
        dropped,
    )


def _once(entries: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Returns (one entry per row id, the others). The choice does not depend on the order of
    ``entries``.
    """
    kept: dict[str, Entry] = {}
    ordered = sorted(entries, key=lambda e: (e.fingerprint.rank, e.fingerprint.whole))
    return _parted(ordered, lambda e: kept.setdefault(e.id, e) is e)


def _parted(
    entries: Iterable[Entry], keep: Callable[[Entry], bool]
) -> tuple[list[Entry], list[Entry]]:
    kept: list[Entry] = []
    out: list[Entry] = []
    for e in entries:
        (kept if keep(e) else out).append(e)
    return kept, out
