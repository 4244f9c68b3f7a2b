"""Fuzzy deduplication: finds the problems whose TF-IDF vectors have a cosine of at least ALIKE,
exactly and in blocks.

Most pairs are never compared. A row's most common words, as many as keep the norm of their part of
its vector below ALIKE, cannot by themselves give a cosine of ALIKE (Cauchy-Schwarz), so a similar
row must share one of the few remaining rare words (prefix filtering: Bayardo, Ma, Srikant, "Scaling
up all pairs similarity search", 2007). A product of sparse matrices over the rare words finds the
pairs that share one; only those are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from common.progress import progress
from data_prep.duplicates.normalise_text import words

ALIKE = 0.85
"""Minimum cosine of two problems that count as duplicates, as in the published dataset."""
BLOCK = 500
"""Rows compared at once: with 83,000 rows a block's product takes some hundred megabytes."""
ROUNDING = 1e-9
"""Tolerance: more than the rounding error of a dot product of two problems in double precision."""
COMPARED_TOGETHER = 100_000
"""Pairs whose cosines are computed at once."""


def nearest(texts: Sequence[str]) -> list[int]:
    """Returns, for each text, the index of its representative: itself, or an earlier kept text that
    is similar.

    In the order given, a text is kept unless a text kept before it is similar; so no two kept texts
    are similar.
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
    """Returns the unit vectors, float64 CSR of shape (texts, vocabulary); the same with only each
    row's rare words; and the least dot product of a row's rare words with a similar vector, shape
    (texts,).
    """
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        vectors = TfidfVectorizer(analyzer=words).fit_transform(texts)
    except ValueError:  # the texts have no words at all
        vectors = csr_matrix((len(texts), 1))
    common = np.argsort(
        np.argsort(-np.bincount(vectors.indices, minlength=vectors.shape[1]), kind="stable")
    )
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


def _alike(
    vectors: Any, suffixes: Any, bounds: np.ndarray, rows: np.ndarray, others: np.ndarray
) -> dict[int, list]:
    """Returns row -> the rows of ``others`` that are similar, ascending, without itself."""
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
