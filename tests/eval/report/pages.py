"""The page of a run, made from rollouts that a test chooses."""

import json
from collections.abc import Callable
from pathlib import Path

from common.files import write_json, write_text
from common.records import Problem, Rollout
from eval import evaluate
from eval.generation import rollout_files
from eval.report.html.write import write
from trainer.recipe import load as configs
from trainer.run.folder import Run
from trainer.run.model_label import BASE, ModelLabel
from trainer.run.step_metrics import StepMetrics

Answer = Callable[[str, Problem, int], tuple[str, int, str]]
"""(label, problem, k) -> text, tokens and finish reason of a rollout."""


def made(folder: Path, sets: dict[str, list[Problem]], n: int, answer: Answer) -> Path:
    """The page of a run whose base model and step 2 gave ``answer``'s rollouts, graded and counted
    by the real code.
    """
    for name, problems in sets.items():
        lines = (
            json.dumps({"id": p.id, "problem": p.problem, "answer": p.answer}) + "\n"
            for p in problems
        )
        write_text(folder / "bench" / f"{name}.jsonl", "".join(lines))
    values = [
        f"eval.sets=[{','.join(sets)}]",
        f"eval.rollouts={n}",
        f"eval.benchmarks={folder}/bench",
    ]
    config = configs.load("sft_4b", [f"run.root={folder}/runs", f"data.dir={folder}/data", *values])
    write_text(folder / "data" / "sft_4b" / "tokenizer" / "tokenizer.json", "{}")
    run = Run(folder / "runs" / "sft_4b")
    configs.write(config, run.config)
    attempt = run.new_attempt()
    configs.write(config, attempt.config)
    write_json(
        attempt.provenance, {"git": "c0ffee", "versions": {"verl": "0.9.1"}, "first_step": 0}
    )
    write_text(attempt.metrics, "".join(step(i).json() for i in range(1, 41)))
    write_json(
        run.export(2) / "manifest.json", {"step": 2, "parameters": 1, "dataset": "x", "files": {}}
    )
    for label in (BASE, ModelLabel(2)):
        planned = evaluate.plan(config, run, label)
        planned.folder.mkdir(parents=True)
        with (planned.folder / rollout_files.ROLLOUTS).open("w") as f:
            for problem in (p for problems in sets.values() for p in problems):
                for k in range(n):
                    text, tokens, finish = answer(str(label), problem, k)
                    key = (problem.set, problem.id, k)
                    rollout_files.append(
                        f, Rollout(key, 1000 + k, text, tokens, finish, "engine-0", 2.5)
                    )
        evaluate.evaluate(config, run, label)
    return write(run, config)


def step(number: int) -> StepMetrics:
    return StepMetrics(
        step=number,
        total=40,
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
        val_loss=0.5 if number % 10 == 0 else None,
        entropy=0.9 / number,
        token_accuracy=number / 50,
    )


def ordinary(label: str, problem: Problem, k: int) -> tuple[str, int, str]:
    """Rollouts 0 to 4: right, wrong, cut off, without a box, and right for math-verify alone; base:
    all wrong.
    """
    if label == "base":
        return "The answer is \\boxed{-1}.", 50, "stop"
    boxed = "<think>\nLet $x^2 = 4$.\n</think>\n\n**So** $x = 2$ and \\[\\boxed{%s}\\]"
    return (
        (boxed % problem.answer, 1234, "stop"),
        (boxed % "-1", 2345, "stop"),
        ("<think>\nOn and on", 32768, "length"),
        ("<think>\na\n</think>\n\nI give up.", 345, "stop"),
        (boxed % f"{problem.answer}.00 + 0", 456, "stop"),
    )[k]
