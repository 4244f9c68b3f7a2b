"""A step whose gradient is not finite: the fused optimizer leaves what verl leaves, which does not
call it then.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT
from tests.trainer.engine.skipped_steps import FACTORS
from tests.trainer.engine.test_engine import built

FINITE = [factor == 1.0 for factor in FACTORS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the steps of one and of two ranks have been run."""
    made = tmp_path_factory.mktemp("skipped")
    built(made, "train.fused_optimizer=true")
    common = {"GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-W", "ignore", "-m", "tests.trainer.engine.skipped_steps"]
    subprocess.run([*command, str(made)], env=os.environ | common, cwd=ROOT, check=True)
    return made


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_step_that_is_skipped_changes_nothing_that_verl_does_not(
    folder: Path, ranks: int
) -> None:
    result = torch.load(folder / f"skipped{ranks}.pt", weights_only=True)
    assert result["differ"] == [[]] * ranks
    assert result["finite"] == FINITE
    assert result["counters"] == [[float(sum(FINITE[: n + 1]))] for n in range(len(FINITE))]
    for moved in result["moved"]:
        assert moved == FINITE[1:]
    assert len(set(result["lr"])) == len(FACTORS), "the schedule goes on in both cases"
