"""A step on paper beside the planner: live bytes, FLOPs and memory traffic."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.cuda.cases import RANKS, Case, documents
from trainer.batching.flops import training_flops
from trainer.planning import memory, work
from trainer.planning.memory import Setup

TOKENS = 20_480
"""Tokens per micro-batch and rank in the recipes."""


@dataclass(frozen=True)
class Row:
    """One figure of one case."""

    what: str
    unit: str
    counted: float
    planned: float

    @property
    def ratio(self) -> float:
        """Counted over planned."""
        return self.counted / self.planned


def setup_of(case: Case) -> Setup:
    """The layout as the planner sees it."""
    fused = "train.fused_optimizer=true" in case.extra
    return Setup(RANKS, case.degree, TOKENS, case.checkpointing, fused=fused)


def compare(result: dict[str, Any]) -> Iterator[Row]:
    """Yields the figures of a step that ``tests.cuda.run`` has written."""
    case = Case.of(result["case"])
    shape, setup = case.shape, setup_of(case)
    flops: dict[str, float] = defaultdict(float)
    moved: dict[str, float] = defaultdict(float)
    for kind, _, _, operations, size in result["operators"]:
        flops[kind] += operations
        moved[kind] += size

    rows = [np.array(lengths, dtype=np.float64) for lengths in documents(TOKENS * case.degree)]
    tokens = np.array([max(lengths.sum(), case.degree) for lengths in rows]) / case.degree
    pairs = np.array([(lengths * (lengths + 1)).sum() / 2 for lengths in rows]) / case.degree
    forward, backward = (
        work.forward(shape, setup, tokens, pairs),
        work.backward(shape, setup, tokens, pairs),
    )
    loss, ends = work.loss(shape, setup, tokens), work.ends(shape, setup, tokens)
    matmul = shape.layers * (forward.matmul + backward.matmul).sum()
    attention = shape.layers * (forward.attention + backward.attention).sum()
    training = training_flops(shape, np.concatenate(rows)).sum() / case.degree
    again = work.recomputed(shape, setup, tokens, pairs)
    recomputed = shape.layers * (again.matmul + again.attention).sum()
    traffic = shape.layers * (forward.traffic + backward.traffic).sum()

    yield Row(
        "live bytes at the peak", "GiB", result["peak"] / memory.GIB, _needed(case) / memory.GIB
    )
    yield Row("layers' matmuls", "TFLOP", flops["matmul"] / 1e12, matmul / 1e12)
    yield Row("attention", "TFLOP", flops["attention"] / 1e12, attention / 1e12)
    yield Row("head", "TFLOP", flops["head"] / 1e12, loss.matmul.sum() / 1e12)
    yield Row(
        "training and recomputation",
        "TFLOP",
        sum(flops.values()) / 1e12,
        (training + recomputed) / 1e12,
    )
    yield Row("elementwise", "GB", moved["elementwise"] / 1e9, (traffic + ends.traffic.sum()) / 1e9)
    yield Row("loss", "GB", moved["loss"] / 1e9, loss.traffic.sum() / 1e9)
    yield Row(
        "optimizer",
        "GB",
        moved["optimizer"] / 1e9,
        work.optimizer_bytes(setup) * shape.parameters / RANKS / 1e9,
    )


def _needed(case: Case) -> float:
    return sum(memory.peak(case.shape, setup_of(case)).values())
