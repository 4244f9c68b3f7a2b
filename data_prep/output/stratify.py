"""Chooses a representative subset of exactly N rows: stratified by source and length, chosen by
hash.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from common.errors import UserError
from common.seeded_order import seeded_key

LENGTH_EDGES = (1_000, 2_000, 4_000, 6_000, 8_000, 12_000, 16_000)
"""Upper edges of the length bins, in tokens (inclusive)."""


@dataclass(frozen=True)
class Candidate:
    """The fields of a row on which the choice depends."""

    id: str
    source: str
    length: int


def choose(rows: Sequence[Candidate], count: int, seed: int) -> list[str]:
    """Returns ``count`` row ids in a seeded order; each stratum (source x length bin) has its
    proportional share.

    Shares are rounded by largest remainder; in a stratum the rows with the smallest hash of (seed,
    id) are taken. The order of ``rows`` does not matter. Raises UserError when there are too few.
    """
    if len(rows) < count:
        raise UserError(f"{len(rows):,} rows are left, but {count:,} were requested")
    strata: dict[tuple[str, int], list[str]] = defaultdict(list)
    for row in rows:
        strata[row.source, sum(row.length > edge for edge in LENGTH_EDGES)].append(row.id)
    exact = {key: len(ids) * count / len(rows) for key, ids in strata.items()}
    quota = {key: int(share) for key, share in exact.items()}
    by_remainder = sorted(strata, key=lambda key: (quota[key] - exact[key], key))
    for key in by_remainder[: count - sum(quota.values())]:
        quota[key] += 1
    chosen = [
        i
        for key, ids in strata.items()
        for i in sorted(ids, key=lambda i: seeded_key(seed, i))[: quota[key]]
    ]
    return sorted(chosen, key=lambda i: seeded_key(seed, i))
