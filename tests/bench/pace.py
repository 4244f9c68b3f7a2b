"""How long steps take on CPU, measured, beside the planner's forecast for this CPU.

    python -m tests.bench.pace CASES      (RANK, WORLD_SIZE)

is one rank, as in ``tests.trainer.planning.footprint``. The CPU's rates are those of three kernels,
the best that the ranks of all cases with as many saw; what the forecast says is how much longer
than the first of them another takes.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from tests.trainer.planning import footprint
from tests.trainer.planning.footprint import Case
from trainer.planning.cluster import MEMORY_SHARE, Cluster
from trainer.planning.hardware import Gpu
from trainer.planning.step_time import step_time

MODEL = tuple(
    f"model.init.{key}"
    for key in (
        "hidden_size=256",
        "intermediate_size=1024",
        "num_hidden_layers=4",
        "head_dim=64",
        "max_position_embeddings=2048",
    )
)
NONE, FULL = ((f"train.checkpointing={kind}", *MODEL) for kind in ("none", "full"))
CASES = (
    Case("16 rows of 128", 1, (128,) * 16, NONE),
    Case("32 rows of 128", 1, (128,) * 32, NONE),
    Case("1 row of 2048", 1, (2048,), NONE),
    Case("1 row of 2048, full", 1, (2048,), FULL),
    Case("8 rows of 128, 2 ranks", 2, (128,) * 8, NONE),
    Case("1 row of 2048, 2 ranks, sp2", 2, (2048,), ("train.sequence_parallel=2", *NONE)),
)
ROWS, WIDTH, HEADS, DIM = 1024, 256, 4, 64
"""Sizes of the timed kernels, about those of the cases."""
LINK = 1e9
"""Bytes/s of gloo on one machine, about."""


def compare(folder: Path, cases: Sequence[Case] = CASES) -> Iterator[tuple[Case, float, float]]:
    """(case, its step as a multiple of the first case's with as many ranks: forecast, and
    measured).
    """
    runs = list(footprint.run("tests.bench.pace", folder, cases))
    first: dict[int, tuple[float, float]] = {}
    for case, shape, setup, measured in runs:
        cpu = _cpu([other for of, _, _, other in runs if of.ranks == case.ranks])
        rows = list(range(len(case.lengths)))
        plan = [[rows, rows]] * (case.ranks // setup.sequence_parallel)
        step = step_time(
            shape, setup, Cluster(cpu, 1, case.ranks, LINK), plan, dict(enumerate(case.lengths))
        )
        forecast, seconds = first.setdefault(case.ranks, (step.total, measured["seconds"]))
        yield case, step.total / forecast, measured["seconds"] / seconds


def _cpu(measured: Sequence[Mapping[str, float]]) -> Gpu:
    rates = {
        name: max(rates[name] for rates in measured)
        for name in ("matmul", "attention", "bandwidth")
    }
    return Gpu(
        (),
        memory=0,
        memory_bandwidth=rates["bandwidth"] / MEMORY_SHARE,
        nvlink=LINK,
        pcie=LINK,
        bf16_flops=rates["matmul"],
        fp32_flops=rates["matmul"],
        matmul_share=1,
        attention_share=rates["attention"] / rates["matmul"],
    )


def fastest(run: Callable[[], Any], times: int) -> float:
    """Seconds of the fastest run."""
    seconds = []
    for _ in range(times):
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def measure(folder: Path, lengths: list[int]) -> dict[str, float]:
    """Seconds of a step; FLOP/s of matmuls and of causal attention, bytes/s of elementwise
    kernels.
    """
    step = footprint.stepper(folder, lengths)
    x, weight, beyond_caches = (
        torch.randn(ROWS, WIDTH),
        torch.randn(WIDTH, 4 * WIDTH),
        torch.randn(2**25),
    )
    q, k, v = (torch.randn(1, HEADS, ROWS, DIM, requires_grad=True) for _ in range(3))
    attention = 3 * 4 * HEADS * DIM * ROWS * (ROWS + 1) / 2

    def attend() -> None:
        scaled_dot_product_attention(q, k, v, is_causal=True).sum().backward()

    return {
        "seconds": fastest(step, 4),
        "matmul": 2 * x.numel() * 4 * WIDTH / fastest(lambda: x @ weight, 20),
        "attention": attention / fastest(attend, 20),
        "bandwidth": 3 * beyond_caches.nbytes / fastest(lambda: beyond_caches + beyond_caches, 5),
    }


if __name__ == "__main__":
    footprint.main(json.loads(sys.argv[1]), measure)
