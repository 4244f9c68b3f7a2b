"""The doctor: each finding provoked, with its message, its fix and the exit code."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common.files import write_json
from tests.conftest import environment
from trainer.doctor import disk, nodes, slurm
from trainer.doctor.forecast import Outlook
from trainer.process import process_group
from trainer.recipe import load as configs
from trainer.run import frozen_config
from trainer.run.folder import Run
from warmstart.cli import main

SMALL = ["data.arithmetic.problems=100"]
Look = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny's dataset, small."""
    folder = tmp_path_factory.mktemp("doctor")
    assert main(["data", "tiny", *SMALL, f"data.dir={folder / 'data'}"]) == 0
    return folder


@pytest.fixture
def folder(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the current one, outside any job."""
    shutil.copytree(built / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    program(tmp_path, "sbatch", 'echo "sbatch: Job 1 to start" >&2')
    return tmp_path


@pytest.fixture
def look(folder: Path, capsys: pytest.CaptureFixture[str]) -> Look:
    """Calls the doctor; returns its findings by what they are about, and the exit code as
    ``code``.
    """

    def call(recipe: str, *words: str) -> dict[str, Any]:
        code = main(["doctor", recipe, *words, "--json"])
        findings = json.loads(capsys.readouterr().out)
        fatal = [f["what"] for f in findings if f["level"] == "fatal"]
        assert code == (3 if fatal else 0)
        return {f["what"]: f for f in findings}

    return call


def program(folder: Path, name: str, text: str) -> None:
    """A program on PATH."""
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


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


@pytest.mark.parametrize(
    ("free", "submits", "level"),
    [
        (55, True, "fatal"),
        (55, False, "fatal"),
        (57, True, "warning"),
        (57, False, "ok"),
        (139, True, "warning"),
        (141, True, "ok"),
    ],
)
def test_checkpoints_that_may_wait_for_their_evaluation_need_room_too(
    free: int, submits: bool, level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run saves ten checkpoints of 12 GB. It keeps two and writes a third. The ten exports take
    2 GB each.
    """
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    if submits:
        program(tmp_path, "sbatch", "exit 0")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free * 10**9))
    shape: Any = SimpleNamespace(trained_parameters=10**9, parameters=10**9)
    outlook = Outlook(shape, 100, 0, None, False, None)
    config = configs.load("tiny", ["train.save_every=10", "train.keep_last=2"])
    found, *_ = disk.check(config, Run(tmp_path / "run"), outlook)
    assert (found.what, found.level) == ("disk space", level)
    assert "need 56.0 GB" in found.cause
    assert ("140.0 GB if every evaluation waits" in found.cause) == submits
    assert ("train.save_every" in found.fix) == (level == "warning")


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
        (["train.lora_rank=8"], "fatal", "a QLoRA trains on one GPU, not on 16 ranks"),
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
    finding = look("tiny", *SMALL)["submission"]
    assert (
        finding["level"] == "fatal"
        and "Invalid account" in finding["cause"]
        and "SBATCH_ACCOUNT" in finding["fix"]
    )


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


# Ranks of a step: real processes, the second one on another machine as far as they can tell.


def rank(folder: Path, number: int, job: int, *words: str, **more: str) -> subprocess.Popen[str]:
    program(folder, "scontrol", "echo localhost")
    values = {
        "SLURM_JOB_ID": str(job),
        "SLURM_STEP_ID": "0",
        "SLURM_PROCID": str(number),
        "SLURM_LOCALID": "0",
        "SLURM_STEP_NODELIST": "here",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_NTASKS": "2",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_END_TIME": str(int(time.time()) + 3600),
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "warmstart", "doctor", "tiny", *SMALL, *words, "--json"],
        cwd=folder,
        env=environment() | values | more,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome(process: subprocess.Popen[str]) -> tuple[int, dict[str, dict[str, Any]]]:
    out, err = process.communicate(timeout=300)
    assert "Traceback" not in err, err
    return process.returncode, {f["what"]: f for f in json.loads(out or "[]")}


def free_job() -> int:
    """A job id whose port is free."""
    return next(
        job for job in range(os.getpid(), os.getpid() + 12000) if nodes.is_free(port_of(job))
    )


def port_of(job: int) -> int:
    return int(
        process_group.slurm_environment(
            {
                "SLURM_JOB_ID": str(job),
                "SLURM_STEP_ID": "0",
                "SLURM_STEP_NODELIST": "here",
                "SLURM_PROCID": "0",
                "SLURM_LOCALID": "0",
                "SLURM_NTASKS": "2",
            }
        )["MASTER_PORT"]
    )


def test_ranks_compare_notes(folder: Path) -> None:
    """All is well but for a package of another version on the second rank."""
    program(folder, "scontrol", "echo localhost")
    metadata = folder / "site" / "numpy-9.9.9.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 9.9.9\n")
    job = free_job()
    other = f"{folder / 'site'}:{environment()['PYTHONPATH']}"
    first, second = rank(folder, 0, job), rank(folder, 1, job, PYTHONPATH=other)
    code, found = outcome(first)
    assert outcome(second) == (0, {})  # the first answers for the job
    assert code == 3
    assert [what for what, f in found.items() if f["level"] == "fatal"] == ["nodes differ"]
    assert (
        "numpy: " in found["nodes differ"]["cause"]
        and "; 9.9.9 on " in found["nodes differ"]["cause"]
    )
    assert (found["clock"]["level"], found["network"]["level"]) == ("ok", "ok")
    meeting = f"ranks meet at 127.0.0.1:{port_of(job)}; Gloo over lo, NCCL chooses one itself"
    assert found["network"]["cause"].startswith(meeting)
    assert "GB/s between 2 ranks" in found["all-reduce"]["cause"]


def test_a_rank_that_does_not_come_or_cannot_come_and_a_port_that_is_taken(folder: Path) -> None:
    program(folder, "scontrol", "echo localhost")
    soon, job = "train.hang_minutes=0.05", free_job()
    alone, lost = rank(folder, 0, job, soon), rank(folder, 1, job + 1, soon)
    with socket.create_server(("", port_of(job + 2))):
        code, found = outcome(rank(folder, 0, job + 2, soon))
    assert (code, found["port"]["level"]) == (3, "fatal")
    assert f"{port_of(job + 2)}, the ranks' rendezvous" in found["port"]["cause"]
    code, found = outcome(alone)
    assert (code, found["peers"]["level"]) == (3, "fatal")
    assert "no message from rank 1 of 2 within 3 s" in found["peers"]["cause"]
    code, found = outcome(lost)
    assert (code, found["peers"]["level"]) == (3, "fatal")
    assert (
        "rank 1 on" in found["peers"]["cause"]
        and "cannot reach 127.0.0.1" in found["peers"]["cause"]
    )


def test_clocks_that_differ_are_told() -> None:
    assert (nodes.clock(0.2).level, nodes.clock(3.0).level) == ("ok", "warning")


def test_the_table_says_what_mends_what(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "tiny", *SMALL, "data.name=other"]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split(maxsplit=2)[:2] == ["fatal", "dataset"]
    assert lines[1].strip() == f"-> warmstart data tiny {SMALL[0]} data.name=other"
    assert lines[-1].startswith("1 fatal, ")


def test_a_runs_folder_may_change_while_its_weights_are_counted(tmp_path: Path) -> None:
    """As it does while the doctor looks on every node at once, or the run prunes."""
    kept, name = tmp_path / "kept.safetensors", "passing.safetensors"
    kept.write_bytes(b"12345")
    code = (
        "import pathlib, shutil, sys\nwhile True:\n"
        " for i in range(50):\n  p = pathlib.Path(sys.argv[1], f'{i}')\n"
    )
    code += "  p.mkdir()\n  (p / sys.argv[2]).write_bytes(b'x')\n  shutil.rmtree(p)\n"
    changing = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name])
    try:
        while not any(p.is_dir() for p in tmp_path.iterdir()):
            assert changing.poll() is None
        for _ in range(3000):
            assert sum(disk._sizes(tmp_path)) in (5, 6)
    finally:
        changing.kill()
        changing.wait()
