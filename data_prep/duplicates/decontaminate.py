"""Decontamination: finds the training problems that are, contain or reword a benchmark problem.

Two steps. A worker calls :meth:`benchmark_index.Index.candidates` for one problem at a time: which
benchmark items it may be, and on what evidence. The parent, which has every row, then calls
:func:`judge` to decide which rows to remove: evidence that several unrelated problems share ("where
m and n are relatively prime positive integers. Find m+n.") is contest boilerplate and is ignored.

A row is removed for the first of these that holds for any item of the index:

- ``exact``: it has exactly the item's words (:func:`data_prep.duplicates.normalise_text.words`), in
  order;
- ``near``: some window of it, about as long as the statement, is similar to the statement, and it
  has the statement's numbers;
- ``ngram``: the n-grams that it shares with the item cover half of the statement.

The statement is the problem without heading, options and the form of its answer
(:mod:`data_prep.duplicates.statement`), and without boilerplate, which other items have too. A near
match or an n-gram counts if it has real words, or is nearly the whole statement.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from data_prep.duplicates.benchmark_index import HALF, Candidate, Index, positions

UNRELATED_CLUSTERS = 3
"""An n-gram in this many clusters of source problems, not counting exact and near matches of the
item, is boilerplate. One cluster is the row itself, a second can be the same leak in other words.
"""


@dataclass(frozen=True)
class Finding:
    """Why a row is removed."""

    set: str
    id: str
    kind: str
    """``exact``, ``near`` or ``ngram``."""
    coverage: float
    """Share of the statement's words outside boilerplate that the evidence covers, 0 to 1. For a
    near match: its similarity.
    """
    overlap: str
    """The covered words of the statement, with ``…`` for each gap."""


def judge(
    candidates_by_row: Mapping[str, tuple[Candidate, ...]],
    clusters: Mapping[str, str],
    index: Index,
) -> dict[str, Finding]:
    """Returns the rows to remove, in order of row id, each with its strongest evidence.

    ``candidates_by_row`` has every row of the source with at least one candidate; ``clusters`` maps
    rows to their cluster of near-duplicate problems (a row that is missing is its own cluster). The
    order of neither matters.
    """
    boilerplate = _boilerplate(candidates_by_row, clusters, index)
    findings = {}
    for row in sorted(candidates_by_row):
        found = [
            finding for c in candidates_by_row[row] if (finding := _finding(c, boilerplate, index))
        ]
        if found:
            findings[row] = min(
                found,
                key=lambda f: (
                    ("exact", "near", "ngram").index(f.kind),
                    -f.coverage,
                    f.set,
                    f.id,
                    f.overlap,
                ),
            )
    return findings


def _boilerplate(
    candidates_by_row: Mapping[str, tuple[Candidate, ...]],
    clusters: Mapping[str, str],
    index: Index,
) -> set[int]:
    """Returns the n-grams that occur in at least UNRELATED_CLUSTERS clusters of the source."""
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
        if item.likeness(covered) < HALF or not item.in_words(covered):
            return None
    overlap: list[str] = []
    for i in sorted(covered):
        if overlap and i - 1 not in covered:
            overlap.append("…")
        overlap.append(item.words[i])
    coverage = 1.0 if candidate.exact else item.likeness(covered)
    return Finding(item.set, item.id, kind, coverage, " ".join(overlap))
