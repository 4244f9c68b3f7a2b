"""Fuzzy deduplication: problems whose TF-IDF vectors have a cosine of at least ALIKE, found exactly and in blocks.

Most pairs are never compared. Of a row's words the most common ones, as many as hold less than ALIKE of its
vector's length, cannot make a cosine of ALIKE with anything by themselves (Cauchy-Schwarz), so a row that is alike
has one of the few rare words left (prefix filtering: Bayardo, Ma, Srikant, "Scaling up all pairs similarity
search", 2007). A product of sparse matrices over the rare words alone finds who shares one; only those are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from common.progress import progress
from data_prep.duplicates.normalise_text import words

ALIKE = 0.85
"""Least cosine of two problems that are one, as the published dataset has it."""
BLOCK = 500
"""Rows compared at once: with 83,000 rows a block's product stays within some hundred megabytes."""
ROUNDING = 1e-9
"""More than the error of a sum of a problem's products in double precision."""
COMPARED_TOGETHER = 100_000
"""Pairs whose cosines are taken at once."""


def nearest(texts: Sequence[str]) -> list[int]:
    """For each text the index of the one that stands for it: itself, or an earlier one that stays and is alike.

    In the order given each text stays unless one that stays before it is alike; so among texts that stay no two are.
    """
    if not texts:
        return []
    vectors, suffixes, bounds = _vectors(texts)
    stands = list(range(len(texts)))
    kept: list[int] = []
    with progress("problems compared", len(texts)) as advance:
        for start in range(0, len(texts), BLOCK):
            block = np.arange(start, min(start + BLOCK, len(texts)))
            earlier = _alike(vectors, suffixes, bounds, block, np.array(kept, int))
            rest = np.array([i for i in block if i not in earlier], int)
            among = _alike(vectors, suffixes, bounds, rest, rest)
            for i in map(int, block):
                found = earlier.get(i) or [j for j in among.get(i, ()) if j < i and stands[j] == j]
                if found:
                    stands[i] = found[0]
                else:
                    kept.append(i)
            advance(len(block))
    return stands


def _vectors(texts: Sequence[str]) -> tuple[Any, Any, np.ndarray]:
    """Unit vectors, float64 CSR of shape (texts, vocabulary); their rare words alone; and the least product of a
    row's rare words with a vector that is alike, shape (texts,)."""
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        vectors = TfidfVectorizer(analyzer=words).fit_transform(texts)
    except ValueError:  # not one word in all texts
        vectors = csr_matrix((len(texts), 1))
    common = np.argsort(np.argsort(-np.bincount(vectors.indices, minlength=vectors.shape[1]), kind="stable"))
    suffix = np.zeros(vectors.nnz, bool)
    bounds = np.full(len(texts), ALIKE)
    for i in range(len(texts)):
        row = slice(vectors.indptr[i], vectors.indptr[i + 1])
        order = np.argsort(common[vectors.indices[row]])
        length = np.sqrt(np.cumsum(vectors.data[row][order] ** 2))
        prefix = int(np.searchsorted(length, ALIKE - 2 * ROUNDING))
        suffix[row.start + order[prefix:]] = True
        bounds[i] -= length[prefix - 1] if prefix else 0
    suffixes = vectors.copy()
    suffixes.data = np.where(suffix, vectors.data, 0)
    suffixes.eliminate_zeros()
    return vectors, suffixes, bounds


def _alike(vectors: Any, suffixes: Any, bounds: np.ndarray, rows: np.ndarray, others: np.ndarray) -> dict[int, list]:
    """Row -> those of ``others`` that are alike, ascending; without itself."""
    shared = (suffixes[rows] @ vectors[others].T).tocoo()
    near = shared.data >= bounds[rows][shared.row] - ROUNDING
    left, right = rows[shared.row[near]], others[shared.col[near]]
    found: dict[int, list] = {}
    for start in range(0, len(left), COMPARED_TOGETHER):
        i, j = left[start : start + COMPARED_TOGETHER], right[start : start + COMPARED_TOGETHER]
        cosines = np.asarray(vectors[i].multiply(vectors[j]).sum(axis=1)).ravel()
        for a, b in zip(i[cosines >= ALIKE].tolist(), j[cosines >= ALIKE].tolist(), strict=True):
            if a != b:
                found.setdefault(a, []).append(b)
    return {i: sorted(alike) for i, alike in found.items()}
