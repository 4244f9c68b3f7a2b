"""Our QLoRA against TRL's SFTTrainer on the same rows: the same losses, though ours packs and TRL does not."""

from pathlib import Path

import pytest

from tests.bench import bench_gpu, bench_qlora
from tests.bench.bench_gpu import Bench, Setting
from tests.bench.cases import OURS, Case, peers
from tests.conftest import lines
from trainer.flops import Shape

TINY = Setting(
    "cpu", "fp32", Shape(2, 128, 256, 4, 2, 32, 1024, tied=True), length=200, median=60, rows=8, recipe="qlora_gsm8k_4b"
)
WIDE = ("model.init.initializer_range=0.1",)
"""With transformers' own 0.02 a frozen head leaves little to learn in five steps."""
CONSTANT = ("train.min_lr_ratio=1.0", "train.warmup_steps=null", "train.warmup_ratio=0.0", "train.lr=1e-2")
TOLERANCE = 2e-4
"""A number of the optimizer's eight bits falls on the other side of a border now and then."""


pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def logs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_gpu, "FOLDER", bench_gpu.FOLDER / "test")


def test_five_steps_have_the_losses_of_trl(tmp_path: Path) -> None:
    bench = Bench(TINY, tmp_path, "bench-qlora-test", deadline=600)
    assert bench.process(Case("base", "the model", ("tests.bench.contenders", "base"), WIDE), 600) is None
    losses = []
    for known in (OURS, next(case for case in peers() if case.name == "trl")):
        case = Case(known.name, known.label, known.program, CONSTANT, known.arguments)
        assert bench.process(case, 600) is None
        losses.append([step["loss"] for step in lines(tmp_path / f"{case.name}.jsonl")])
    assert losses[0] == pytest.approx(losses[1], abs=TOLERANCE)


def test_the_benchmark_compares_both(tmp_path: Path) -> None:
    """Its code on the CPU; nothing is said of speed there."""
    rate, memory, parity = bench_qlora.compare(TINY, "short rows", tmp_path)
    assert rate.ratio and memory.ratio
    assert parity.ours is not None and parity.ours < 1e-4
