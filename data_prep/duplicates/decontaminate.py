"""Benchmark problems that a training problem is, contains or rewords.

Two steps. A worker asks :meth:`benchmark_index.Index.candidates` about one problem at a time: which
benchmark items it could be, and on what evidence. The parent, which sees every row, then asks :func:`judge`
which rows to remove: evidence that several unrelated problems share ("where m and n are relatively prime
positive integers. Find m+n.") is contest boilerplate and counts for nothing.

A row is removed for the first of these that holds, the item being any of the index:

- ``exact``: it has the item's words (:func:`data_prep.duplicates.normalise_text.words`), no more and no fewer;
- ``near``: some window of it, as long as the statement, reads like the statement, and not by its boilerplate
  alone; and it has the statement's numbers;
- ``ngram``: the n-grams that it shares with the item, boilerplate aside, cover half of the statement.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from data_prep.duplicates.benchmark_index import HALF, Candidate, Index, positions

UNRELATED_CLUSTERS = 3
"""An n-gram in this many clusters of source problems, those that match the item as a whole aside, is
boilerplate. One cluster is the row itself, a second can be the same leak in other words."""


@dataclass(frozen=True)
class Finding:
    """Why a row is removed."""

    set: str
    id: str
    kind: str
    """``exact``, ``near`` or ``ngram``."""
    coverage: float
    """Share of the statement's words that the evidence covers, 0..1. For a near match, its similarity."""
    overlap: str
    """Those words of the statement, with ``…`` for a gap."""


def judge(
    candidates_by_row: Mapping[str, tuple[Candidate, ...]], clusters: Mapping[str, str], index: Index
) -> dict[str, Finding]:
    """The rows to remove, by row id ascending, each with its strongest evidence.

    ``candidates_by_row`` has every row of the source that has any candidate; ``clusters`` names the cluster
    of near-duplicate problems of each (a row that it lacks is a cluster by itself). Neither's order matters.
    """
    boilerplate = _boilerplate(candidates_by_row, clusters, index)
    findings = {}
    for row in sorted(candidates_by_row):
        found = [finding for c in candidates_by_row[row] if (finding := _finding(c, boilerplate, index))]
        if found:
            findings[row] = min(
                found, key=lambda f: (("exact", "near", "ngram").index(f.kind), -f.coverage, f.set, f.id, f.overlap)
            )
    return findings


def _boilerplate(
    candidates_by_row: Mapping[str, tuple[Candidate, ...]], clusters: Mapping[str, str], index: Index
) -> set[int]:
    """The n-grams that several unrelated problems of the source have."""
    having: dict[int, set[str]] = defaultdict(set)
    for row, candidates in candidates_by_row.items():
        copied = {index.families[c.item] for c in candidates if c.whole}
        for c in candidates:
            if index.families[c.item] not in copied:
                for gram in c.grams:
                    having[gram].add(clusters.get(row, row))
    return {gram for gram, found in having.items() if len(found) >= UNRELATED_CLUSTERS}


def _finding(candidate: Candidate, boilerplate: set[int], index: Index) -> Finding | None:
    item = index.items[candidate.item]
    if candidate.whole:
        kind = "exact" if candidate.exact else "near"
        covered = positions(candidate.aligned)
    else:
        kind, covered = "ngram", set()
        for gram in set(candidate.grams) - boilerplate:
            for i, start in index.places[gram]:
                if i == candidate.item:
                    covered.update(range(start, start + item.ngram))
        if len(covered) < HALF * len(item.words):
            return None
    overlap: list[str] = []
    for i in sorted(covered):
        if overlap and i - 1 not in covered:
            overlap.append("…")
        overlap.append(item.words[i])
    coverage = len(covered) / len(item.words)
    return Finding(item.set, item.id, kind, coverage, " ".join(overlap))
