"""The doctor: each finding provoked, with its message, its fix and the exit code."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from common.files import write_json
from tests.trainer.doctor.conftest import SMALL, Look, program
from trainer.doctor import slurm
from trainer.recipe import load as configs
from trainer.run import frozen_config
from warmstart.cli import main


def test_nothing_is_wrong_with_what_is_built(look: Look, folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    found = look("tiny", *SMALL)
    assert {what: f["level"] for what, f in found.items()} == {
        "recipe": "ok",
        "size": "ok",
        "model": "ok",
        "dataset": "ok",
        "benchmarks": "ok",
        "plan": "ok",
        "GPUs": "ok",
        "disk space": "ok",
        "file system": "ok",
        "file locks": "ok",
        "signal": "ok",
        "submission": "ok",
        "time limit": "not here",
        "peers": "not here",
    }
    assert sorted(folder.rglob("*")) == before


def damaged_model(folder: Path) -> None:
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")


def without_a_shard(folder: Path) -> None:
    damaged_model(folder)
    (folder / "model" / "a.safetensors").write_bytes(b"\2" + b"\0" * 7 + b"{}")
    write_json(
        folder / "model" / "model.safetensors.index.json",
        {"weight_map": {"w": "a.safetensors", "v": "b.st"}},
    )


def flipped(folder: Path) -> None:
    path = folder / "data" / "tiny" / "rows.parquet"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def started(folder: Path) -> None:
    frozen_config.start(configs.load("tiny", [*SMALL, "train.lr=1e-3"]))


def nothing(folder: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("provoke", "words", "what", "cause", "fix"),
    [
        (nothing, ["train.lr=-1"], "recipe", "train.lr must be positive", "recipes/base.yaml"),
        (started, [], "recipe", "train.lr: 0.001 -> 0.002", "run.name=NAME"),
        (nothing, ["data.name=other"], "dataset", "data/other is not built", "warmstart data tiny"),
        (
            flipped,
            [],
            "dataset",
            "missing or damaged: rows.parquet",
            "rm -r data/tiny && warmstart data tiny",
        ),
        (
            nothing,
            ["model.init=null", "model.path=no/model"],
            "model",
            "no/model is neither a folder nor in the hub's cache",
            "warmstart prefetch tiny",
        ),
        (
            damaged_model,
            ["model.path=model"],
            "model",
            "needs config.json and safetensors",
            "set model.path",
        ),
        (without_a_shard, ["model.path=model"], "model", "lacks b.st", "set model.path"),
        (
            nothing,
            ["eval.sets=[aime2025]", "eval.benchmarks=none"],
            "benchmarks",
            "none is not a folder",
            "warmstart prefetch tiny",
        ),
        (
            nothing,
            ["eval.sets=[own]", "eval.benchmarks=data/tiny"],
            "benchmarks",
            "own.jsonl does not",
            "eval.sets=[",
        ),
        (
            nothing,
            ["model.init.hidden_size=4000000"],
            "disk space",
            "GB free; the kept checkpoints",
            "make room",
        ),
        (nothing, ["run.root=/proc/runs"], "file system", "/proc", "run.root=DIR"),
    ],
)
def test_a_fault_on_the_login_node_is_fatal(
    provoke: Callable[[Path], None],
    words: list[str],
    what: str,
    cause: str,
    fix: str,
    look: Look,
    folder: Path,
) -> None:
    provoke(folder)
    finding = look("tiny", *SMALL, *words)[what]
    assert finding["level"] == "fatal"
    assert cause in finding["cause"]
    assert fix in finding["fix"]


def test_what_fits_no_gpu_is_refused_before_one_is_asked_for(look: Look) -> None:
    finding = look("sft_4b", "train.max_tokens_per_gpu=200000", "--nodes=1")["plan"]
    assert finding["level"] == "fatal" and "does not fit" in finding["cause"]
    again = "warmstart plan sft_4b train.max_tokens_per_gpu=200000"
    assert finding["fix"] == f"{again} cluster.nodes=1 cluster.gpus_per_node=4"


def test_the_fixes_carry_what_the_site_and_the_command_say(look: Look, folder: Path) -> None:
    (folder / "slurm").mkdir()
    choices = "OVERRIDES=(data.dir=/nowhere 'run.root=my runs' train.max_tokens_per_gpu=999)"
    (folder / "slurm" / "site.env").write_text(choices)
    found = look("tiny", "train.max_tokens_per_gpu=400")
    assert "/nowhere/tiny is not built" in found["dataset"]["cause"]
    words = "tiny data.dir=/nowhere 'run.root=my runs' train.max_tokens_per_gpu=400"
    assert found["dataset"]["fix"] == f"warmstart data {words}"
    assert "its run is my runs/tiny" in found["recipe"]["cause"]


@pytest.mark.parametrize(
    ("words", "level", "cause"),
    [
        ([], "ok", "16 ranks (4 x 4)"),
        (["cluster.nodes=64"], "ok", "16 ranks (4 x 4)"),
        (["--nodes=64"], "fatal", "leaves 64 of 128 data-parallel groups without rows"),
        (["-N", "16"], "warning", "balance 0.54"),
        (["-N2", "--ntasks-per-node=5"], "fatal", "5 ranks per node on 4 GPUs"),
        (
            ["train.lora_rank=8", "train.compile=false", "train.fused_optimizer=false"],
            "fatal",
            "a QLoRA trains on one GPU, not on 16 ranks",
        ),
    ],
)
def test_the_size_is_that_of_the_job_that_will_be_asked_for(
    words: list[str], level: str, cause: str, look: Look
) -> None:
    finding = look("sft_4b", *words)["size"]
    assert finding["level"] == level and cause in finding["cause"]


def test_gpus_of_another_kind_or_too_few_of_them(look: Look, folder: Path) -> None:
    program(
        folder,
        "nvidia-smi",
        'echo "NVIDIA A100-SXM4-40GB, 40960, 560.1, [N/A]"; '
        'echo "NVIDIA V100, 16384, 560.1, [N/A]"',
    )
    found = look("sft_4b")
    assert (
        found["GPU kind"]["level"]
        == found["GPU count"]["level"]
        == found["CUDA"]["level"]
        == "fatal"
    )
    assert "V100 with 16.0 GiB; the recipe is planned for a100-40" in found["GPU kind"]["cause"]
    assert "2 here, train.ranks=4" in found["GPU count"]["cause"]


def test_a_gpu_that_cannot_be_read_is_named(look: Look, folder: Path) -> None:
    lost = "Unable to determine the device handle for GPU 0000:01:00.0: Unknown Error"
    program(
        folder,
        "nvidia-smi",
        'echo "NVIDIA A100-SXM4-40GB, 40960, 560.1, [N/A]"; '
        f'echo "{lost}"; echo "NVIDIA A100-SXM4-40GB, [Unknown Error], 560.1, [Unknown Error]"',
    )
    found = look("sft_4b")
    assert (found["GPUs"]["level"], found["GPUs"]["cause"]) == (
        "warning",
        f"nvidia-smi says: {lost}",
    )
    kind = found["GPU kind"]
    assert kind["level"] == "ok", kind
    assert "40GB with 40.0 GiB (nvidia-smi states [Unknown Error])" in kind["cause"]
    assert "2 here, train.ranks=4" in found["GPU count"]["cause"]


def test_a_job_without_gpus_or_without_time_is_stopped(
    look: Look, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = str(int(time.time()) + 90)
    for name, value in {
        "JOB_ID": "7",
        "JOB_END_TIME": end,
        "JOB_NUM_NODES": "2",
        "NTASKS": "8",
    }.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("SLURMD_NODENAME", "n1")
    program(folder, "nvidia-smi", "exit 9")
    program(folder, "sbatch", "echo 'sbatch: error: Access/permission denied' >&2; exit 1")
    found = look("sft_4b")
    assert (found["GPUs"]["level"], found["time limit"]["level"]) == ("fatal", "fatal")
    assert "a step and its save need" in found["time limit"]["cause"]
    assert found["time limit"]["fix"].startswith("sbatch --time=")
    # What the watcher can do elsewhere does not stop training.
    assert (
        found["submission"]["level"] == "warning"
        and "warmstart watch sft_4b" in found["submission"]["fix"]
    )
    # Outside a step, as in a shell of an allocation, it is this machine that would train.
    assert "4 ranks (1 x 4)" in found["size"]["cause"]
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 3600))
    assert "such jobs" in look("sft_4b")["time limit"]["cause"]


def test_who_may_not_submit_learns_it_on_the_login_node(look: Look, folder: Path) -> None:
    program(
        folder,
        "sbatch",
        "echo 'sbatch: error: Invalid account or account/partition combination' >&2; exit 1",
    )
    finding = look("gpu_smoke", *SMALL)["submission"]
    assert (
        finding["level"] == "fatal"
        and "Invalid account" in finding["cause"]
        and "SBATCH_ACCOUNT" in finding["fix"]
    )
    finding = look("tiny", *SMALL)["submission"]  # which needs no job
    assert finding["level"] == "warning" and "warmstart run tiny" in finding["fix"]


def test_a_signal_that_comes_later_than_a_save_needs(
    look: Look, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "tiny.sh").write_text("#!/bin/sh\n#SBATCH --signal=USR1@90\n")
    monkeypatch.setattr(slurm, "SCRIPTS", folder)
    assert look("tiny", *SMALL)["signal"]["level"] == "ok"
    write_json(
        folder / "runs" / "tiny" / "checkpoints" / "step_3" / "manifest.json", {"seconds": 100}
    )
    finding = look("tiny", *SMALL)["signal"]
    assert finding["level"] == "warning" and "a stop needs 230 s (measured)" in finding["cause"]
    assert finding["fix"] == "sbatch --signal=USR1@230"


def test_a_fast_save_does_not_shorten_the_margin_below_the_runs_own(
    look: Look, folder: Path
) -> None:
    """Like the run, the doctor takes the estimate from the size where a save was faster."""
    estimate = look("sft_4b")["signal"]["cause"]
    write_json(
        folder / "runs" / "sft_4b" / "checkpoints" / "step_3" / "manifest.json", {"seconds": 1}
    )
    assert look("sft_4b")["signal"]["cause"] == estimate
    assert "assuming that each rank writes 100 MB/s" in estimate


def test_the_table_says_what_mends_what(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "tiny", *SMALL, "data.name=other"]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split(maxsplit=2)[:2] == ["fatal", "dataset"]
    assert lines[1].strip() == f"-> warmstart data tiny {' '.join(SMALL)} data.name=other"
    assert lines[-1].startswith("1 fatal, ")
