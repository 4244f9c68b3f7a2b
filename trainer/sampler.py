"""Which rows a step trains, and how they are dealt to ranks: pure functions that every rank computes alike."""

from __future__ import annotations

import math

import numpy as np

Plan = list[list[list[int]]]
"""[rank][micro-batch] -> row indices; every rank has the same number of micro-batches, some may be empty."""


def epoch_order(rows: int, seed: int, epoch: int) -> np.ndarray:
    """The order of one epoch: a permutation of ``range(rows)`` that depends on (seed, epoch) alone."""
    return np.random.default_rng([seed, epoch]).permutation(rows)


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Every row is trained once an epoch; the last step is smaller when the rows do not divide."""
    return math.ceil(rows / batch_size)


def step_rows(step: int, rows: int, batch_size: int, seed: int) -> np.ndarray:
    """Row indices of optimizer step ``step`` (0-based, counted over all epochs)."""
    epoch, within = divmod(step, steps_per_epoch(rows, batch_size))
    return epoch_order(rows, seed, epoch)[within * batch_size : (within + 1) * batch_size]


def deal(lengths: dict[int, int], ranks: int, budget: int) -> Plan:
    """Packs rows (index -> tokens) into micro-batches of at most ``budget`` tokens, the same number on each rank.

    Longest first into the emptiest micro-batch (LPT); one more micro-batch a rank until all fit.
    Raises ValueError for a row longer than the budget.
    """
    for row, length in lengths.items():
        if length > budget:
            raise ValueError(f"row {row} has {length} tokens, train.max_tokens_per_gpu is {budget}: raise it")
    micros = max(1, math.ceil(sum(lengths.values()) / (budget * ranks)))
    while (bins := _pack(lengths, ranks * micros, budget)) is None:
        micros += 1
    return [[bins[m * ranks + r] for m in range(micros)] for r in range(ranks)]


def _pack(lengths: dict[int, int], count: int, budget: int) -> list[list[int]] | None:
    loads = [0] * count
    bins: list[list[int]] = [[] for _ in range(count)]
    for row in sorted(lengths, key=lambda r: (-lengths[r], r)):
        emptiest = min(range(count), key=loads.__getitem__)
        if loads[emptiest] + lengths[row] > budget:
            return None
        loads[emptiest] += lengths[row]
        bins[emptiest].append(row)
    return bins
