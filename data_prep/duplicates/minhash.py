"""Near-duplicate problems: clusters by MinHash LSH over words, checked pair by pair.

Two problems are the same when their text is, spacing and case aside, or when their words nearly are and
their answers are equal: a template with other numbers has another answer and is another problem.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from common.files import sha256_json
from common.progress import progress
from data_prep.answers.boxed import normalise
from data_prep.duplicates.normalise_text import words

PERMUTATIONS = 64
"""MinHash values of a signature: 256 bytes a row; the Jaccard estimate's standard error is 0.06 at 0.8."""
SCHEME: Literal["affine32"] = "affine32"
"""datasketch's 32-bit hash family."""
SHINGLE = 3
"""Words of a shingle."""
FEWEST = 5
"""Shingles of the shortest problem that can be a near-duplicate: operators are no words, so that "2 + 2" and
"2 - 2", or two figures without a word, would be one."""
BANDS = (12, 5)
"""Bands and rows of the index: a pair with similarity 0.8 shares a band with probability 0.99, one with 0.5 in
three cases of ten, which the check of the whole signature then sorts out."""
SIMILAR = 0.8
"""Least estimated Jaccard similarity of the shingles of two near-duplicates."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What deduplication needs of a row."""

    id: str
    text: str
    """Hash of the problem's text, spacing and case aside."""
    answer: str
    """Hash of the canonical answer."""
    whole: str
    """Hash of the whole row."""
    signature: np.ndarray
    """uint32, shape (PERMUTATIONS,)."""
    shingles: int
    rank: tuple[int, int, str]
    """The smallest rank of a cluster stays."""


def fingerprint(name: str, problem: str, answer: str, whole: str, rank: tuple[int, int, str]) -> Fingerprint:
    """The fingerprint of row ``name``; ``whole`` is the hash of the row."""
    text = sha256_json(" ".join(problem.lower().split()))[:16]
    sketch, shingles = signature(problem)
    return Fingerprint(name, text, sha256_json(normalise(answer))[:16], whole, sketch, shingles, rank)


def signature(problem: str) -> tuple[np.ndarray, int]:
    """MinHash of the problem's word shingles, uint32, shape (PERMUTATIONS,), and how many shingles it has."""
    spelled = words(problem)
    shingles = {" ".join(spelled[i : i + SHINGLE]) for i in range(len(spelled) - SHINGLE + 1)}
    sketch = _empty().copy()
    sketch.update_batch([s.encode() for s in sorted(shingles)])
    return sketch.hashvalues.astype(np.uint32), len(shingles)


@functools.cache
def _empty() -> Any:
    """An empty sketch to copy: drawing the permutations takes longer than hashing a problem."""
    from datasketch import MinHash

    return MinHash(num_perm=PERMUTATIONS, scheme=SCHEME)


def clusters(rows: Sequence[Fingerprint], near: bool = True) -> dict[str, str]:
    """Row id -> id of its cluster's best row; whatever their order. Without ``near``, clusters of equal texts."""
    rows = sorted(rows, key=lambda r: r.rank)
    parent = list(range(len(rows)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for a, b in _pairs(rows, near):
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    return {row.id: rows[root(i)].id for i, row in enumerate(rows)}


def _pairs(rows: Sequence[Fingerprint], near: bool) -> Iterable[tuple[int, int]]:
    """Pairs of duplicates that connect every cluster."""
    first: dict[str, int] = {}
    for i, row in enumerate(rows):
        if (j := first.setdefault(row.text, i)) != i:
            yield j, i
    if not near:
        return
    # Only rows with equal answers can be near-duplicates, so each answer has an index of its own.
    by_answer: dict[str, list[int]] = defaultdict(list)
    for i in sorted(first.values()):
        if rows[i].shingles >= FEWEST:
            by_answer[rows[i].answer].append(i)
    with progress("problems compared", sum(map(len, by_answer.values()))) as advance:
        for members in by_answer.values():
            if len(members) > 1:
                yield from _near(rows, members)
            advance(len(members))


def _near(rows: Sequence[Fingerprint], members: Sequence[int]) -> Iterable[tuple[int, int]]:
    from datasketch import MinHashLSH

    index = MinHashLSH(num_perm=PERMUTATIONS, params=BANDS)
    for i in members:
        sketch = _empty().copy()
        sketch.hashvalues = rows[i].signature
        for j in index.query(sketch):
            if np.mean(rows[i].signature == rows[j].signature) >= SIMILAR:
                yield j, i
        index.insert(i, sketch)
