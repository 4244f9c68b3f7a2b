"""The GPU benchmark's code on the CPU, at a tiny shape, and what it does without a GPU."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench import bench_gpu
from tests.bench.bench_gpu import LOGITS_COPIES, Setting, fitting, measure
from tests.bench.cases import OURS, Case, knobs, peers
from tests.bench.table import Result
from tests.conftest import ROOT, environment
from trainer.flops import Shape
from trainer.planning import memory
from trainer.planning.basis import KNOWN

TINY = Setting("cpu", "fp32", Shape(2, 64, 128, 4, 2, 32, 1024, tied=True), length=200, median=100, peak=1e12)
QWEN3_4B = Setting("cuda", "bf16", KNOWN["Qwen/Qwen3-4B-Base"], length=8192)
FP32_PARITY = 1e-5


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    """Ours, stock verl and a case that fails."""
    broken = Case("broken", "a broken trainer", ("tests.bench.contenders", "nobody"))
    cases = [next(peers()), broken]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setattr(bench_gpu, "FOLDER", bench_gpu.FOLDER / "test")
        return measure(TINY, tmp_path_factory.mktemp("gpu"), cases, "bench-gpu-test", deadline=600)


@pytest.mark.slow
def test_ours_stands_beside_stock_verl(results: list[Result]) -> None:
    rows = {(r.case, r.metric): r for r in results}
    for case in ("ours", "verl"):
        for metric in ("tokens/s", "causal MFU", "peak resident set"):
            assert rows[case, metric].ours, (case, metric)
    for metric in ("tokens/s", "causal MFU", "peak resident set"):
        assert rows["verl", metric].ratio
    assert rows["forecast", "peak resident set"].ratio
    difference = rows["loss parity", "to verl"].ours
    assert difference is not None and difference < FP32_PARITY


@pytest.mark.slow
def test_a_case_that_fails_has_a_row_with_the_reason(results: list[Result]) -> None:
    row = next(r for r in results if (r.case, r.metric) == ("broken", "tokens/s"))
    assert row.ours
    assert row.peer is None
    assert row.peer_name is not None and "KeyError: 'nobody'" in row.peer_name


def test_nothing_is_started_when_the_time_is_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench = bench_gpu.Bench(TINY, tmp_path, "bench-gpu-test", deadline=0)
    assert not any(bench.run(case) for case in peers())
    assert bench.measured == bench.failed == {}


def test_every_knob_differs_from_the_recipe(tmp_path: Path) -> None:
    bench = bench_gpu.Bench(QWEN3_4B, tmp_path, "bench-gpu-test", deadline=0)
    own = bench.config(OURS).train
    for case in knobs():
        key = case.name.partition("=")[0]
        assert bench.config(case).train[key] != own[key]


def test_all_layers_of_the_4b_fit_an_h200_and_fewer_an_h100() -> None:
    room = {gpu: memory_of * 2**30 for gpu, memory_of in (("h100", 79.1), ("h200", 139.8))}
    fits = {gpu: fitting(QWEN3_4B.shape, QWEN3_4B.layout(), bytes_) for gpu, bytes_ in room.items()}
    assert fits["h200"].layers == 36
    assert 20 < fits["h100"].layers < 36
    more = replace(fits["h100"], layers=fits["h100"].layers + 1)
    needed = sum(memory.on_gpu(memory.peak(more, QWEN3_4B.layout())).values())
    assert needed + 2 * LOGITS_COPIES * 151_936 * 8192 > room["h100"]
    with pytest.raises(ValueError, match="lower LENGTH"):
        fitting(QWEN3_4B.shape, QWEN3_4B.layout(), 2**30)


def test_without_a_gpu_it_says_so_and_exits_3() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.bench_gpu"],
        cwd=ROOT, env=environment() | {"CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 3
    assert done.stdout == "bench-gpu needs a CUDA device, and there is none here.\n"
