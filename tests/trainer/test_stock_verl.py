"""The same loss curve as stock verl's own trainer, on the same rows in the same order."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import environment, lines, warmstart

STEPS = 20
TOLERANCE = 1e-3
RECIPE = [
    "data.arithmetic.problems=500", "train.batch_size=16", f"train.max_steps={STEPS}", "train.max_tokens_per_gpu=512",
]  # fmt: skip


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a trained line's first steps on two ranks."""
    folder = tmp_path_factory.mktemp("stock")
    warmstart("data", "tiny", *RECIPE, folder=folder)
    warmstart("train", "tiny", *RECIPE, folder=folder)
    return folder / "runs" / "tiny"


def test_twenty_steps_have_stock_verls_losses(ours: Path) -> None:
    out = ours / "stock.jsonl"
    done = subprocess.run(
        [sys.executable, "-m", "tests.stock_verl", str(ours / "config.yaml"), str(out)],
        env=environment() | {
            "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0",
            "GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": "",
        },
        cwd=ours.parent.parent, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    theirs = lines(out)
    mine = lines(ours / "metrics.jsonl")
    assert [s["step"] for s in mine] == [s["step"] for s in theirs] == list(range(1, STEPS + 1))
    for a, b in zip(mine, theirs, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=TOLERANCE), a["step"]
    assert mine[-1]["loss"] < mine[0]["loss"] - 1
