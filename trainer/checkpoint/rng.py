"""Saves one rank's random number generators to JSON and restores them."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def seed(root: int, step: int, rank: int) -> None:
    """Seeds every generator of this process from (root, step, rank)."""
    word = int(np.random.SeedSequence([root, step, rank]).generate_state(1)[0])
    random.seed(word)
    np.random.seed(word)
    torch.manual_seed(word)


def capture() -> dict[str, Any]:
    """Returns the state of Python's, numpy's and torch's generators, with this rank's GPU, as
    strict JSON values.
    """
    numpy = np.random.get_state(legacy=False)
    return {
        "python": random.getstate(),
        "numpy": {**numpy, "state": {**numpy["state"], "key": numpy["state"]["key"].tolist()}},
        "torch": torch.get_rng_state().numpy().tobytes().hex(),
        "cuda": torch.cuda.get_rng_state().numpy().tobytes().hex()
        if torch.cuda.is_initialized()
        else None,
    }


def restore(state: dict[str, Any]) -> None:
    """Restores the generators to a state from ``capture``, which may have been read back
    from JSON.
    """
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    numpy = state["numpy"]
    key = np.array(numpy["state"]["key"], dtype=np.uint32)
    np.random.set_state({**numpy, "state": {**numpy["state"], "key": key}})
    torch.set_rng_state(_tensor(state["torch"]))
    if state["cuda"] is not None and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(_tensor(state["cuda"]))


def _tensor(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
