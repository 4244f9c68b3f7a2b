"""A run whose card a test reads: its files, made by hand, and evaluations without an engine."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import ModelCard

from common.files import sha256_file, write_json, write_text
from common.records import Problem, Rollout
from data_prep.benchmarks import sets
from eval import evaluate
from eval.generation import rollout_files
from trainer.recipe import load as configs
from trainer.run.folder import Run
from trainer.run.model_label import ModelLabel
from trainer.run.step_metrics import StepMetrics

SETS = {"aime2025": 30, "amc2023": 40}
STEP = 2


def made(tmp_path: Path) -> Run:
    """A run of the 4B recipe as its files tell it: a dataset, two steps on two GPUs, an export, no
    evaluation.
    """
    for name, count in SETS.items():
        problems = [Problem(f"{name}/{i}", "?", str(i), name) for i in range(count)]
        (tmp_path / "bench").mkdir(exist_ok=True)
        lines = (
            json.dumps({k: v for k, v in asdict(p).items() if k != "set"}) + "\n" for p in problems
        )
        (tmp_path / "bench" / f"{name}.jsonl").write_text("".join(lines))
    values = [
        "eval.sets=[aime2025,amc2023]",
        "eval.rollouts=4",
        f"eval.benchmarks={tmp_path}/bench",
    ]
    config = configs.load(
        "sft_4b", [f"run.root={tmp_path}/runs", f"data.dir={tmp_path}/data", *values]
    )
    dataset, run = tmp_path / "data" / "sft_4b", Run(tmp_path / "runs" / "sft_4b")
    write_text(dataset / "tokenizer" / "tokenizer.json", "{}")
    write_text(
        dataset / "heldout.jsonl", '{"id": "a", "problem": "What is \\\\sqrt{4}?", "answer": "2"}\n'
    )
    write_rows(dataset, "What is \\sqrt{4}?", ["7", "-3"])
    manifest = {
        "settings": {
            "rows": {},
            "source": {"hub": "open-r1/OpenR1-Math-220k", "config": "default", "files": []},
            "benchmarks": {"aime2024": "x", "math500": "y"},
        },
        "funnel": {
            "source records": 1000,
            "dropped: in a benchmark": 2,
            "kept: train": 900,
            "kept: test": 98,
        },
        "rows": {"train": 900, "test": 98},
        "tokens": {"train": 5_000_000, "test": 300_000},
        "contaminated": {"r1": {"set": "math500"}, "r2": {"set": "math500"}},
        "files": {"heldout.jsonl": sha256_file(dataset / "heldout.jsonl")},
    }
    write_json(dataset / "manifest.json", manifest)
    configs.write(config, run.config)
    attempt = run.new_attempt()
    configs.write(config, attempt.config)
    write_json(
        attempt.provenance, {"git": "c0ffee", "versions": {"verl": "0.9.1"}, "first_step": 0}
    )
    write_text(attempt.metrics, "".join(step(n).json() for n in range(1, STEP + 2)))
    write_json(
        run.export(STEP) / "manifest.json",
        {
            "step": STEP,
            "parameters": 4_022_468_096,
            "dataset": sha256_file(dataset / "manifest.json"),
            "files": {},
        },
    )
    return run


def write_rows(dataset: Path, problem: str, answers: list[str]) -> None:
    """Training rows with these answers, and a held-out row with this problem."""
    rows = [("train", "Longer than the held-out problem, or not?", a) for a in answers]
    records = [
        {
            "id": str(i),
            "source": "s",
            "uuid": "u",
            "trace": 0,
            "problem": text,
            "solution": f"<think>\nI count.\n</think>\n\n\\boxed{{{answer}}}",
            "answer": answer,
            "split": split,
        }
        for i, (split, text, answer) in enumerate([*rows, ("test", problem, "2")])
    ]
    pq.write_table(pa.Table.from_pylist(records), dataset / "rows.parquet")


def step(number: int) -> StepMetrics:
    """An hour on two ranks."""
    return StepMetrics(
        step=number,
        total=3,
        epoch=1,
        loss=1 / number,
        grad_norm=1.0,
        lr=1e-5,
        tokens=7200,
        tokens_per_s=2.0,
        tokens_per_s_per_gpu=1.0,
        mfu=0.5,
        seconds=3600.0,
        mean_seconds=3600.0,
        data_seconds=0.1,
        balance=0.9,
        fill=0.9,
        peak_memory_gb=30.0,
        eta_s=0.0,
        skipped=False,
        val_loss=0.5,
    )


def evaluated(run: Run, label: ModelLabel, right: int, cut: int = 0) -> Path:
    """Evaluates ``label`` without an engine: of each problem's four rollouts so many are right or
    cut.
    """
    config = configs.read(run.config)
    planned = evaluate.plan(config, run, label)
    planned.folder.mkdir(parents=True)
    with (planned.folder / rollout_files.ROLLOUTS).open("w") as f:
        for p in sets.load(Path(config.eval.benchmarks), list(config.eval.sets), None):
            for k in range(4):
                is_cut = 4 - cut <= k
                text = (
                    "<think>"
                    if is_cut
                    else f"<think>a</think>\\boxed{{{p.answer if k < right else 'x'}}}"
                )
                finish = "length" if is_cut else "stop"
                rollout_files.append(
                    f, Rollout((p.set, p.id, k), 0, text, 100, finish, "engine-0", 1.0)
                )
    return evaluate.evaluate(config, run, label)


def metadata(text: str) -> Any:
    return ModelCard(text, ignore_metadata_errors=False).data
