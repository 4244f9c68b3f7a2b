"""What compiling saves in a layer and in the loss, counted without a GPU, against the planner."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.cuda import paper
from tests.cuda.kernels import SIZES, Row
from trainer.batching.flops import Shape
from trainer.planning import work
from trainer.planning.memory import Setup
from trainer.planning.workload import KNOWN

WITHIN = 0.1
"""Relative difference of the planner's kernels and traffic from the counted ones."""
MATMULS = {"forward": 8, "backward": 15}
"""Kernels of matmuls and attention in a layer."""


@pytest.fixture(scope="module")
def rows(library: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Returns what ``tests.cuda.kernels`` counts."""
    out = tmp_path_factory.mktemp("kernels") / "rows.json"
    command = [sys.executable, "-W", "ignore", "-m", "tests.cuda.kernels", str(out)]
    subprocess.run(command, env=os.environ | paper.environment(library), cwd=ROOT, check=True)
    return [tuple(row) for row in json.loads(out.read_text())]


def shape(size: str) -> Shape:
    return KNOWN[f"Qwen/Qwen3-{size.upper()}-Base"]


def test_a_layers_kernels_and_bytes_are_the_planners(rows: list[Row]) -> None:
    count = {"forward": work.forward_bytes, "backward": work.backward_bytes}
    layers = [row for row in rows if row[0] in SIZES]
    assert len(layers) == len(SIZES) * 3 * 2
    for size, how, direction, kernels, moved in layers:
        name, _, checkpointing = how.partition(", ")
        setup = Setup(1, 1, 1, checkpointing or "none", compiled=name == "compiled")
        launched = work.KERNELS[name][direction == "backward"] - MATMULS[direction]
        assert count[direction](shape(size), setup) == pytest.approx(moved, rel=WITHIN)
        assert launched == pytest.approx(kernels, rel=WITHIN)


def test_compiled_layers_move_a_quarter_of_the_bytes_in_a_sixth_of_the_kernels(
    rows: list[Row],
) -> None:
    for size in SIZES:
        kernels, moved = (
            {
                name: sum(row[what] for row in rows if row[:2] == (size, name))
                for name in ("eager", "compiled, selective")
            }
            for what in (3, 4)
        )
        assert moved["eager"] > 4 * moved["compiled, selective"]
        assert kernels["eager"] > 6 * kernels["compiled, selective"]


def test_the_compiled_loss_is_one_kernel_over_its_logits(rows: list[Row]) -> None:
    """Inductor counts one read of what that kernel reads twice: the planner counts both."""
    eager, compiled = (row for row in rows if row[0] == "logits")
    planned = work.loss(shape("4b"), Setup(1, 1, 1, "full", compiled=True), np.array([1e6]))
    matrix = (4 + 4 + 2) * shape("4b").embedding_parameters
    each = (planned.traffic[0] - matrix) / (1e6 * shape("4b").vocabulary)
    assert compiled[3:] == (2, pytest.approx(each - 2, rel=1e-3))
    assert eager[4] == pytest.approx(44, rel=1e-3)
