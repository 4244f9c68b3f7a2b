"""Chooses the rows of each step: pure functions of (seed, epoch) that do not depend on the number
of ranks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from omegaconf import DictConfig

from common.errors import UserError


def epoch_order(rows: int, seed: int, epoch: int) -> np.ndarray:
    """Returns the order of one epoch: a permutation of ``range(rows)`` that depends only on (seed,
    epoch).
    """
    return np.random.default_rng([seed, epoch]).permutation(rows)


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Returns the steps per epoch, in which every row is trained once; the last step may be
    smaller.
    """
    return math.ceil(rows / batch_size)


def step_rows(step: int, rows: int, batch_size: int, seed: int) -> np.ndarray:
    """Returns the row indices of optimizer step ``step`` (0-based, counted over all epochs)."""
    epoch, within = divmod(step, steps_per_epoch(rows, batch_size))
    return epoch_order(rows, seed, epoch)[within * batch_size : (within + 1) * batch_size]


def check_fits(lengths: Iterable[int], settings: DictConfig, ranks: int) -> None:
    """Raises UserError when ``ranks`` ranks cannot train rows of ``lengths`` tokens with
    ``settings`` (train).

    The sequence-parallel degree must divide the ranks, every row must fit a micro-batch, and a full
    step must have a row for every data-parallel group.
    """
    degree = settings.sequence_parallel
    if ranks % degree:
        raise UserError(f"train.sequence_parallel={degree} does not divide the {ranks} ranks")
    longest, budget = max(lengths), settings.max_tokens_per_gpu * degree
    if longest > budget:
        raise UserError(
            f"the longest row has {longest} tokens and a micro-batch holds {budget} "
            "(train.max_tokens_per_gpu x train.sequence_parallel): raise one of them, or build the "
            "dataset with a lower data.max_length"
        )
    if settings.batch_size < ranks // degree:
        raise UserError(
            f"train.batch_size={settings.batch_size} leaves some of the {ranks // degree} "
            "data-parallel groups without rows: raise it, train on fewer ranks, or raise "
            "train.sequence_parallel"
        )
