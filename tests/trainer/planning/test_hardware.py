"""GPUs by CUDA's names: what meters, planner and doctor make of a card, of its look-alikes, and of
one unknown.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import DictConfig

from common.errors import UserError
from tests.conftest import environment
from trainer.doctor import devices
from trainer.planning.hardware import GPUS, kind_of, peak_flops
from trainer.planning.planner import Planner
from trainer.recipe import load as configs


@pytest.fixture(scope="module")
def recipe() -> DictConfig:
    """Planned for 16 A100-40."""
    return configs.load("sft_4b")


@pytest.mark.parametrize(
    ("device", "kind", "tflops"),
    [
        ("NVIDIA A100-SXM4-40GB", "a100-40", 312),
        ("NVIDIA A100-PCIE-40GB", "a100-40-pcie", 312),
        ("NVIDIA A100 80GB PCIe", "a100-80-pcie", 312),
        ("NVIDIA A100-SXM-64GB", "a100-64", 358),
        ("NVIDIA A800-SXM4-80GB", "a800-80", 312),
        ("NVIDIA H100 80GB HBM3", "h100-80", 989),
        ("NVIDIA H100 PCIe", "h100-80-pcie", 756),
        ("NVIDIA H100 NVL", "h100-94-nvl", 835),
        ("NVIDIA H800", "h800-80", 989),
        ("NVIDIA H20", "h20-96", 148),
        ("NVIDIA H200", "h200-141", 989),
        ("NVIDIA H200 NVL", "h200-141-nvl", 835),
        ("NVIDIA GH200 120GB", "gh200-96", 989),
        ("NVIDIA GH200 480GB", "gh200-96", 989),
        ("NVIDIA L40", "l40-48", 181),
        ("NVIDIA L40S", "l40s-48", 362),
        ("NVIDIA B200", "b200-180", 2250),
        ("NVIDIA GeForce RTX 4070", "rtx4070-12", 58.3),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", "rtx4070tis-16", 88.2),
        ("NVIDIA GeForce RTX 4090", "rtx4090-24", 165.2),
        ("NVIDIA GeForce RTX 4090 D", "rtx4090d-24", 147),
        # Less than the card they are named after, or nothing that is known.
        ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", None, None),
        ("GRID A100-10C", None, None),
        ("NVIDIA A100X", None, None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None, None),
        ("NVIDIA B2000", None, None),
        ("Tesla V100-SXM2-16GB", None, None),
    ],
)
def test_a_card_is_known_by_its_whole_name(
    device: str, kind: str | None, tflops: float | None
) -> None:
    assert kind_of(device) == kind
    assert peak_flops(device) == (None if tflops is None else pytest.approx(tflops * 1e12))


def test_a_name_has_one_kind_and_figures_are_in_their_units() -> None:
    names = [name for gpu in GPUS.values() for name in gpu.names]
    assert len(names) == len(set(names))
    for kind, gpu in GPUS.items():
        nominal = int(kind.split("-")[1])
        assert 0.85 * nominal < gpu.memory / 1e9 < 1.1 * nominal, kind
        assert gpu.fp32_flops < gpu.bf16_flops and gpu.pcie <= gpu.nvlink < gpu.memory_bandwidth, (
            kind
        )


def test_memory_and_peak_can_be_stated(recipe: DictConfig) -> None:
    slice_of_it = configs.amend(
        recipe, ["cluster.gpu_memory_gib=19.5", "cluster.gpu_peak_tflops=156"]
    )
    card, part = Planner(recipe), Planner(slice_of_it)
    assert card.cluster.gpu == GPUS["a100-40"]
    assert (part.cluster.gpu.memory, part.cluster.gpu.peak(2)) == (19.5 * 2**30, 156e12)
    before, after = card.own(), part.own()
    assert before is not None and before.fits
    assert after is not None and not after.fits and after.step.compute > before.step.compute
    with pytest.raises(UserError, match=r"cluster\.gpu_peak_tflops must be positive"):
        configs.amend(recipe, ["cluster.gpu_peak_tflops=0"])


CARD = "cluster.gpu_memory_gib=15 cluster.gpu_peak_tflops=60"


@pytest.mark.parametrize(
    ("shown", "words", "level", "text"),
    [
        (
            "NVIDIA A100-SXM4-40GB, 40960",
            "",
            "ok",
            "A100-SXM4-40GB with 40.0 GiB; the recipe is planned for a100-40",
        ),
        ("NVIDIA A100-SXM4-80GB, 81920", "", "ok", "with 80.0 GiB"),
        ("NVIDIA A100-SXM-64GB, 65536", "", "ok", "with 64.0 GiB"),
        ("NVIDIA H200, 143771", "", "warning", "cluster.gpu=h200-141"),
        ("NVIDIA H200 NVL, 143771", "cluster.gpu=h200-141", "warning", "cluster.gpu=h200-141-nvl"),
        ("NVIDIA H20, 97871", "cluster.gpu=h20-96", "ok", "planned for h20-96"),
        (
            "NVIDIA H20, 97871",
            "cluster.gpu=h200-141",
            "fatal",
            "warmstart plan sft_4b cluster.gpu=h20-96",
        ),
        ("NVIDIA A100-SXM4-40GB, 40960", "cluster.gpu=a100-80", "fatal", "cluster.gpu=a100-40"),
        (
            "NVIDIA A100-SXM4-40GB, 40960",
            "cluster.gpu_memory_gib=60",
            "fatal",
            "nodes with larger GPUs",
        ),
        (
            "NVIDIA T1000, 65536",
            "",
            "warning",
            "cluster.gpu_memory_gib=N cluster.gpu_peak_tflops=N",
        ),
        ("NVIDIA T1000, 16384", CARD, "ok", "memory and peak set in the recipe"),
        (
            "NVIDIA A100-SXM4-40GB, 40960, Enabled",
            "",
            "warning",
            "MIG with 40.0 GiB before it is split into slices",
        ),
        (
            "NVIDIA GH200 480GB, [N/A]",
            "cluster.gpu=gh200-96",
            "ok",
            "with unknown memory (nvidia-smi states [N/A]); the recipe is planned for gh200-96",
        ),
        (
            "NVIDIA GB10, [Not Supported]",
            "",
            "warning",
            "states [Not Supported]); the recipe is planned for a100-40 -> cluster.gpu=KIND",
        ),
        ("NVIDIA GB10, [N/A]", CARD, "ok", "memory and peak set in the recipe"),
        (
            "NVIDIA A100-SXM4-40GB, 40960, [Unknown Error]",
            "cluster.gpu=a100-80",
            "fatal",
            "A100-SXM4-40GB with 40.0 GiB;",
        ),
    ],
)
def test_the_doctor_compares_the_card_with_the_one_planned_for(
    shown: str,
    words: str,
    level: str,
    text: str,
    recipe: DictConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name, memory, *mig = shown.split(", ")
    program = tmp_path / "nvidia-smi"
    program.write_text(f'#!/bin/sh\necho "{name}, {memory}, 580.1, {mig[0] if mig else "[N/A]"}"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    finding = next(
        f for f in devices.check(configs.amend(recipe, words.split())) if f.what == "GPU kind"
    )
    assert (finding.level, text in f"{finding.cause} -> {finding.fix}") == (level, True), finding


@pytest.mark.parametrize(
    ("cc", "level", "text"),
    [
        (None, "fatal", "needs a C compiler: neither gcc nor clang is installed"),
        ("no-such-cc", "fatal", "CC=no-such-cc does not exist"),
        ("sh", "ok", "sh, for train.compile=true"),
    ],
)
def test_the_doctor_looks_for_the_compiler_that_compiling_needs(
    cc: str | None, level: str, text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CC", raising=False)
    if cc is None:
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        monkeypatch.setenv("CC", cc)
    headers = tmp_path / "include"
    monkeypatch.setattr(devices.sysconfig, "get_path", lambda *_: str(headers))
    finding = devices._compiler()
    assert (finding.level, "train.compile=false" in finding.fix) == ("fatal", True)
    headers.mkdir()
    (headers / "Python.h").touch()
    finding = devices._compiler()
    assert (finding.level, text in finding.cause) == (level, True), finding
    assert level == "ok" or "train.compile=false" in finding.fix


METER = """
import json, sys
from types import SimpleNamespace
from trainer.process import cpu_platform as platform
platform.use("cpu")
import torch
import torch.distributed as dist
from trainer.loop import gather_metrics as meters
from trainer.recipe import load as configs
from trainer.loop.step import StepResult
from trainer.run.step_metrics import TokenMeans

dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}/meeting", rank=0, world_size=1)
engine = SimpleNamespace(engine_config=SimpleNamespace(mixed_precision={"param_dtype": "bf16"}))
counts = {"tokens": 10, "flops": 1e12, "balance": 1.0, "fill": 1.0}
means = TokenMeans(loss=1.0, entropy=0.5, accuracy=0.5)
result = StepResult([0], means, 1.0, 1e-3, **counts, data_seconds=0.0, seconds=2.0)
meters.get_device_name = lambda: "cuda"  # the one thing that a machine without a GPU cannot answer
for name, words in json.loads(sys.argv[2]):
    torch.cuda.get_device_name = lambda: name
    meter = meters.Meter(engine, configs.load("tiny", words).cluster, 10, 0)
    for step in (1, 2):
        print(meter.gather(step, 1, result, None, meter.peak_gb()).mfu)
"""


def test_mfu_is_counted_against_the_cards_peak_and_never_against_a_guess(tmp_path: Path) -> None:
    sliced = "NVIDIA A100-SXM4-40GB MIG 3g.20gb"
    cases = [("NVIDIA H20", []), (sliced, []), (sliced, ["cluster.gpu_peak_tflops=125"])]
    done = subprocess.run(
        [sys.executable, "-c", METER, str(tmp_path), json.dumps(cases)],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    known, again, note, *unknown, stated, _ = done.stdout.splitlines()
    assert float(known) == float(again) == pytest.approx(1e12 / 2 / 148e12)
    assert note == (
        f"MFU is not known on {sliced}, whose peak is not in the table: give its dense bf16 peak "
        "in TFLOP/s with cluster.gpu_peak_tflops=N"
    )
    assert unknown == ["None", "None"]
    assert float(stated) == pytest.approx(1e12 / 2 / 125e12)
