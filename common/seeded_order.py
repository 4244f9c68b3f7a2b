"""A pseudo-random order of names. A name's sort key depends only on the seed and the name."""

from __future__ import annotations

import hashlib


def seeded_key(seed: int, name: str) -> bytes:
    """Returns the sort key of ``name`` under ``seed``: the SHA-256 of ``seed:name``."""
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()
