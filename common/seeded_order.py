"""An order of named things that depends on a seed and on each name alone."""

from __future__ import annotations

import hashlib


def seeded_key(seed: int, name: str) -> bytes:
    """Returns the sort key of ``name`` under ``seed``: SHA-256 of both."""
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()
