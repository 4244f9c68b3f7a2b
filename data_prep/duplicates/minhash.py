"""Near-duplicate problems: clusters by MinHash LSH over words, checked pair by pair.

Two problems are duplicates if their texts are equal, ignoring headings, spacing and case, or if
their words are nearly the same and their answers equal: a template with other numbers has another
answer and is another problem. Where the answer has few possible values (yes, C, 12), their formulas
and numbers must be equal too.
"""

from __future__ import annotations

import functools
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from common.progress import progress
from data_prep.answers.normalise import normalise
from data_prep.duplicates.formulas import few_valued, formulas
from data_prep.duplicates.headings import without_heading
from data_prep.duplicates.normalise_text import words

PERMUTATIONS = 64
"""MinHash values per signature: 256 bytes per row; the Jaccard estimate's standard error at 0.8 is
0.05.
"""
SCHEME: Literal["affine32"] = "affine32"
"""datasketch's 32-bit hash family."""
SHINGLE = 3
"""Words per shingle."""
FEWEST = 5
"""Minimum number of shingles of a problem that can be a near-duplicate. Operators are not words, so
"2 + 2" and "2 - 2", or two figures without a word, would otherwise be duplicates.
"""
BANDS = (12, 5)
"""Bands of the LSH index and rows per band: a pair with similarity 0.8 shares a band with
probability 0.99, a pair with similarity 0.5 with probability 0.3; the latter are then rejected by
comparing the whole signature.
"""
SIMILAR = 0.8
"""Minimum estimated Jaccard similarity of the shingles of two near-duplicates."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The features of a row that deduplication uses."""

    id: str
    text: str
    """Hash of the problem's text, ignoring headings, spacing and case."""
    answer: str
    """Hash of the canonical answer."""
    formulas: str
    """Hash of the problem's formulas and numbers if its answer has few possible values, else
    empty.
    """
    whole: str
    """Hash of all of the row's fields."""
    signature: np.ndarray
    """uint32, shape (PERMUTATIONS,)."""
    shingles: int
    rank: tuple[int, int, str]
    """(tokens, characters of the solution, id). The row with the smallest rank of a cluster is
    kept.
    """


def fingerprint(
    name: str, problem: str, answer: str, whole: str, rank: tuple[int, int, str]
) -> Fingerprint:
    """Returns the fingerprint of row ``name``; ``whole`` is the hash of the row."""
    problem, answer = without_heading(problem), normalise(answer)
    text = _short_hash(" ".join(problem.lower().split()))
    says = _short_hash(" ".join(formulas(problem))) if few_valued(answer) else ""
    sketch, shingles = signature(problem)
    return Fingerprint(name, text, _short_hash(answer), says, whole, sketch, shingles, rank)


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


def signature(problem: str) -> tuple[np.ndarray, int]:
    """Returns the MinHash of the problem's word shingles, uint32 of shape (PERMUTATIONS,), and
    their number.
    """
    spelled = words(problem)
    shingles = {" ".join(spelled[i : i + SHINGLE]) for i in range(len(spelled) - SHINGLE + 1)}
    sketch = _empty().copy()
    sketch.update_batch([shingle.encode() for shingle in shingles])
    return sketch.hashvalues.astype(np.uint32), len(shingles)


@functools.cache
def _empty() -> Any:
    """Returns an empty sketch to copy: drawing the permutations takes longer than hashing a
    problem.
    """
    from datasketch import MinHash

    return MinHash(num_perm=PERMUTATIONS, scheme=SCHEME)


def clusters(rows: Sequence[Fingerprint], near: bool = True) -> dict[str, str]:
    """Returns row id -> id of its cluster's best row, in any order of ``rows``. Without ``near``,
    only equal texts are clustered.
    """
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
    """Yields pairs (i, j) of duplicates that connect every cluster; indices into ``rows``."""
    first: dict[str, int] = {}
    for i, row in enumerate(rows):
        if (j := first.setdefault(row.text, i)) != i:
            yield j, i
    if not near:
        return
    # Only rows with equal answers can be near-duplicates, so each answer has its own index.
    by_answer: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i in sorted(first.values()):
        if rows[i].shingles >= FEWEST:
            by_answer[rows[i].answer, rows[i].formulas].append(i)
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
