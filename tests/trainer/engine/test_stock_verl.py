"""The same loss curve as stock verl's own trainer, on the same rows in the same order."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import STEPS, environment, lines

TOLERANCE = 1e-3


def test_twenty_steps_have_stock_verls_losses(short_run: Path) -> None:
    out = short_run / "stock.jsonl"
    done = subprocess.run(
        [sys.executable, "-m", "tests.stock_verl", str(short_run / "config.yaml"), str(out)],
        env=environment()
        | {
            "RANK": "0",
            "LOCAL_RANK": "0",
            "WORLD_SIZE": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": "0",
            "GLOO_SOCKET_IFNAME": "lo",
            "CUDA_VISIBLE_DEVICES": "",
        },
        cwd=short_run.parent.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    theirs = lines(out)
    mine = lines(short_run / "metrics.jsonl")
    assert [s["step"] for s in mine] == [s["step"] for s in theirs] == list(range(1, STEPS + 1))
    for a, b in zip(mine, theirs, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=TOLERANCE), a["step"]
    assert mine[-1]["loss"] < mine[0]["loss"] - 1
