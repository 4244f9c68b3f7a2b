"""A training step on CUDA tensors, without a GPU: where its tensors lie, what the host waits for,
what it takes.

The real engine, model, loading, attention, loss and optimizer of the recipes on fake tensors, as
rank 0 of 16. What no paper shows: the values, the kernels, NCCL, and compiled layers.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.cuda.cases import FUSED, QUICK, RANKS, WHOLE, WIDE, Case
from tests.cuda.forecast import compare

LEAST_LIVE = 0.9
"""Live bytes at the peak over the planner's count, at least; at most they are all that is counted.
"""
WITHIN = 0.1
"""Relative difference from the planner's FLOPs and memory traffic."""
BF16 = 2
"""Bytes of a number in the files of the weights."""
MASTER = [["torch.float32", "cuda:0"]]
READS = {
    "FSDPEngine.optimizer_step: torch.bool": 1,
    "FSDPEngine.optimizer_step: torch.float32": 1,
}
"""All that the host waits for in a step: whether the gradient's norm is finite, and the norm. With
a fused optimizer the device looks at the norm.
"""

SLOW = [case for case in (*WIDE, *WHOLE) if case not in QUICK]
every_case = pytest.mark.parametrize(
    "case",
    [*QUICK, *(pytest.param(case, marks=pytest.mark.slow) for case in SLOW)],
    ids=lambda case: case.name,
)


@every_case
def test_master_weights_gradients_and_moments_are_fp32_on_the_gpu(step: dict[str, Any]) -> None:
    for what in ("parameters", "buffers", "gradients", "moments"):
        assert step[what] == MASTER, what


@every_case
def test_a_rank_reads_its_shards_of_the_weights_alone(case: Case, step: dict[str, Any]) -> None:
    assert step["loaded"] == pytest.approx(BF16 * case.shape.parameters / RANKS, rel=1e-3)


@every_case
def test_the_host_waits_for_the_norm_and_with_a_fused_optimizer_for_nothing(
    case: Case, step: dict[str, Any]
) -> None:
    assert step["reads"] == ({} if FUSED in case.extra else READS)
    assert step["waits"] == 0


@every_case
def test_rows_come_from_pinned_memory(step: dict[str, Any]) -> None:
    assert step["uploads"] == {}


@every_case
def test_live_bytes_are_nine_tenths_to_all_of_the_planners_count(step: dict[str, Any]) -> None:
    live = next(compare(step))
    assert LEAST_LIVE <= live.ratio <= 1, live


@every_case
def test_flops_and_traffic_are_the_planners(step: dict[str, Any]) -> None:
    _, *rows = compare(step)
    assert [row for row in rows if abs(row.ratio - 1) > WITHIN] == []


@every_case
def test_a_validation_is_launched_without_a_read(step: dict[str, Any]) -> None:
    assert step["validation_reads"] == {}


def test_every_option_is_in_a_quick_case() -> None:
    assert {(case.degree, case.size) for case in QUICK} == {
        (case.degree, case.size) for case in WIDE
    }
    assert {(case.checkpointing, case.size) for case in QUICK} == {
        (case.checkpointing, case.size) for case in WIDE
    }
