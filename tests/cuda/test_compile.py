"""Compiled layers, on a CPU: nothing compiles on fake tensors, and Inductor compiles the same
graphs for both.
"""

import os
import shutil
import subprocess
import sys
from typing import Any

import pytest
import torch

from tests.conftest import ROOT
from tests.trainer.engine.test_engine import GRADIENT, LOSS, built, difference

COMPILER = shutil.which(os.environ.get("CXX", "g++"))
LAYERS = 10
"""More than the eight variants that torch compiles of a function before it gives up
(torch._dynamo.config).
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Returns the layers' results, eager and compiled."""
    if COMPILER is None:
        pytest.skip(
            "COMPILED LAYERS ARE NOT CHECKED HERE: torch.compile on a CPU needs a C++ compiler, "
            "install g++"
        )
    root = tmp_path_factory.mktemp("packings")
    folders = {name: root / name for name in ("eager", "compiled")}
    for name, folder in folders.items():
        wanted = str(name == "compiled").lower()
        built(
            folder,
            f"model.init.num_hidden_layers={LAYERS}",
            "train.checkpointing=selective",
            f"train.compile={wanted}",
        )
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "tests.cuda.packings",
        *map(str, folders.values()),
    ]
    subprocess.run(command, env=os.environ | {"GLOO_SOCKET_IFNAME": "lo"}, cwd=ROOT, check=True)
    return {
        name: torch.load(folder / "result.pt", weights_only=True)
        for name, folder in folders.items()
    }


def test_layers_are_compiled_once_for_all_layers_and_packings(results: dict[str, Any]) -> None:
    first, *others = results["compiled"]["graphs"]
    assert 0 < first < LAYERS
    assert set(others) == {first}
    assert not any(results["eager"]["graphs"])


def test_compiled_losses_and_gradients_are_the_eager_ones(results: dict[str, Any]) -> None:
    for mine, theirs in zip(results["compiled"]["losses"], results["eager"]["losses"], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=LOSS)
    assert difference(results["compiled"]["gradients"], results["eager"]["gradients"]) < GRADIENT


def test_the_down_projection_is_not_computed_again(results: dict[str, Any]) -> None:
    """Nor is any other matmul that eager layers do without."""
    assert results["compiled"]["matmuls"] == results["eager"]["matmuls"] > 0
