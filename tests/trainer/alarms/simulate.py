"""Simulated steps: falling loss, drifting gradient norm, heavy tails, smaller last steps of epochs.

    python -m tests.trainer.alarms.simulate RUNS [FIRST_SEED]

prints false alarms per 10,000 clean steps, and the share of planted spikes that are found.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from trainer.alarms.alarms import Alarm, Alarms

STEPS, PER_EPOCH, ROWS, EARLY = 1408, 704, 64, 42
STEP: dict[str, Any] = {
    "loss": 1.0,
    "grad_norm": 0.5,
    "epoch": 1,
    "rows": ROWS,
    "tokens": 400_000,
    "tokens_per_s": 8.0,
    "tokens_per_s_per_gpu": 1.0,
    "entropy": 0.5,
    "token_accuracy": 0.8,
    "val_loss": None,
    "slow": [],
}


def clean(seed: int, tails: float = 4.0) -> list[dict[str, Any]]:
    """A run of the 4B recipe's length. Loss, entropy and accuracy share a part of their noise, as
    those of one batch do; noise is Student's t with ``tails`` degrees of freedom, and larger by the
    root of what a smaller step lacks. The gradient norm wanders (an AR(1) process), the loss drops
    at the second epoch.
    """
    draw = np.random.default_rng(seed)
    wander, steps = 0.0, []
    for number in range(1, STEPS + 1):
        epoch = (number - 1) // PER_EPOCH + 1
        rows = 8 if number % PER_EPOCH == 0 else ROWS
        noise = math.sqrt(ROWS / rows)
        wander = 0.95 * wander + 0.03 * draw.standard_normal()
        batch = 0.03 * noise * draw.standard_t(tails)
        level = 0.45 + 0.6 * math.exp(-number / 60) - 0.05 * (epoch - 1)
        loss = level * math.exp(batch)
        odds = 1.8 - 1.5 * math.exp(-number / 60) + 0.2 * (epoch - 1) - batch
        odds += 0.02 * noise * draw.standard_t(tails)
        norm = (0.4 + 2 * math.exp(-number / 30)) * math.sqrt(noise)
        values = {
            "step": number,
            "epoch": epoch,
            "rows": rows,
            "loss": loss,
            "entropy": loss * math.exp(0.02 * noise * draw.standard_t(tails)),
            "token_accuracy": 1 / (1 + math.exp(-odds)),
            "grad_norm": norm * math.exp(wander + 0.12 * draw.standard_t(tails)),
        }
        if number % 50 == 0:
            # On the same rows: only the weights vary.
            values["val_loss"] = (level + 0.01) * math.exp(0.003 * draw.standard_t(tails))
        steps.append(STEP | values)
    return steps


def raised(steps: list[dict[str, Any]]) -> list[Alarm]:
    """Returns the alarms of these steps."""
    alarms = Alarms(clip_grad=1.0, early=EARLY)
    return [alarm for step in steps for alarm in alarms.feed(step)]


def spiked(seed: int, step: int, key: str, factor: float) -> list[dict[str, Any]]:
    """A clean run with a metric of one step multiplied."""
    steps = clean(seed)[:step]
    steps[-1][key] *= factor
    return steps


PLANTS: dict[str, tuple[str, Callable[[int, int], list[dict[str, Any]]]]] = {
    "loss x 1.5": ("loss", lambda seed, at: spiked(seed, at, "loss", 1.5)),
    "loss x 2": ("loss", lambda seed, at: spiked(seed, at, "loss", 2)),
    "gradient norm x 3": ("grad_norm", lambda seed, at: spiked(seed, at, "grad_norm", 3)),
    "gradient norm x 10": ("grad_norm", lambda seed, at: spiked(seed, at, "grad_norm", 10)),
}


def main() -> None:
    runs, first = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    seeds = range(first, first + runs)
    for tails in (3.0, 4.0, 1e6):
        counts = Counter(a.kind for seed in seeds for a in raised(clean(seed, tails)))
        rates = {kind: f"{1e4 * n / runs / STEPS:.2f}" for kind, n in counts.items()}
        print(f"t{tails:g}: {runs * STEPS:,} clean steps, per 10,000: {rates or 'no alarm'}")
    for name, (kind, make) in PLANTS.items():
        places = np.random.default_rng(first).integers(60, STEPS, runs)
        found = sum(
            any(a.kind == kind and a.step == at for a in raised(make(seed, int(at))))
            for seed, at in zip(seeds, places, strict=True)
        )
        print(f"{name}: {found} of {runs} found")


if __name__ == "__main__":
    main()
