"""Chooses what the cases train: the shape of Qwen3-4B on a CUDA device, or a tiny one on a CPU for
a rehearsal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from trainer.batching.flops import Shape
from trainer.planning import memory
from trainer.planning.hardware import peak_flops
from trainer.planning.workload import KNOWN

SEED = 9
"""Its 40 rows have a median of 5,940 tokens and one beyond 32,768."""
FULL_RECIPE, ADAPTER_RECIPE = "sft_4b", "qlora_gsm8k_4b"
LOGITS_COPIES = 4
"""Copies of all logits in the compute type that a peer holds: logits, log-probabilities and their
gradients.
"""
LAYERS, SAVED_LAYERS = 12, 2
"""Layers in the short check. A checkpoint of two layers and the embedding has 7 GB."""


@dataclass(frozen=True)
class Load:
    """Rows, and the layers of the model that trains on them."""

    recipe: str
    layers: int
    length: int
    """Tokens of the longest row, and of a micro-batch."""
    median: int
    """Tokens, before rows are clipped at ``length``."""
    rows: int
    """Rows of one optimizer step."""

    def lengths(self, steps: int) -> list[int]:
        """Tokens of each row of ``steps`` steps: lognormal, sigma 0.8, as long-think rows are."""
        drawn = np.random.default_rng(SEED).lognormal(np.log(self.median), 0.8, self.rows * steps)
        return np.clip(drawn.round(), 8, self.length).astype(int).tolist()


@dataclass(frozen=True)
class Setting:
    """The device of a check, the model that it writes, and the loads of its cases."""

    device: str
    precision: str
    shape: Shape
    """Shape of the model that is written; a load takes the first of its layers."""
    loads: Mapping[str, Load] = field(default_factory=dict)
    warm: int = 2
    timed: int = 3
    """Steps."""
    saves: int = 1
    peak: float | None = None
    """FLOP/s of the device, where it is known."""
    spread: float = 0.02
    """Standard deviation of the random weights."""

    @property
    def steps(self) -> int:
        """Steps of a training case."""
        return self.warm + self.timed


def from_dict(values: dict[str, Any]) -> Setting:
    """The inverse of ``dataclasses.asdict``."""
    loads = {name: Load(**load) for name, load in values["loads"].items()}
    return Setting(**values | {"shape": Shape(**values["shape"]), "loads": loads})


def rehearsal() -> Setting:
    """A tiny shape in fp32 on the CPU: shows that the cases run, not how fast."""
    full, adapters = Load(FULL_RECIPE, 2, 200, 100, 8), Load(ADAPTER_RECIPE, 2, 200, 60, 8)
    loads = {
        "full": full,
        "saved": full,
        "adapters": adapters,
        "long rows": replace(adapters, median=10**9),
    }
    return Setting(
        "cpu", "fp32", Shape(2, 64, 128, 4, 2, 32, 1024, tied=True), loads, warm=1, timed=2
    )


def on_gpu(name: str, room: float, length: int, *, short: bool) -> Setting:
    """The shape of Qwen3-4B on the device called ``name`` with ``room`` bytes of memory.

    A short check takes 12 of the 36 layers for full training; fewer where those do not fit.
    """
    shape = KNOWN["Qwen/Qwen3-4B-Base"]
    setup = memory.Setup(ranks=1, sequence_parallel=1, tokens=length, checkpointing="selective")
    fits = fitting(shape, setup, room).layers
    full = Load(FULL_RECIPE, min(fits, LAYERS) if short else fits, length, 6000, 8)
    adapters = Load(ADAPTER_RECIPE, shape.layers, 4096, 250, 16)
    loads = {
        "full": full,
        "saved": replace(full, layers=SAVED_LAYERS),
        "adapters": adapters,
        "long rows": replace(adapters, median=10**9),
    }
    return Setting(
        "cuda", "bf16", shape, loads, 2, 3 if short else 10, 1 if short else 3, peak_flops(name)
    )


def fitting(shape: Shape, setup: memory.Setup, room: float) -> Shape:
    """``shape`` with the most layers that fit ``room`` bytes besides a peer's logits.

    Raises ValueError when no layer fits.
    """
    logits = LOGITS_COPIES * setup.compute * shape.vocabulary * setup.tokens
    for layers in range(shape.layers, 0, -1):
        fewer = replace(shape, layers=layers)
        if sum(memory.on_gpu(memory.peak(fewer, setup)).values()) + logits <= room:
            return fewer
    raise ValueError(
        f"rows of {setup.tokens:,} tokens do not fit this device with one layer: take a lower "
        "--length"
    )
