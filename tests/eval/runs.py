"""Runs with evaluations that no engine made: ledgers written by hand."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from common.files import MANIFEST, write_json
from common.records import Grade, Problem, Rollout
from data_prep import rules
from data_prep.benchmarks import sets as benchmarks
from eval.evaluate import PROBLEMS
from eval.evaluation_settings import SETTINGS
from eval.generation import rollout_files
from eval.grading.metrics import write_metrics
from trainer.recipe import load as configs
from trainer.run.folder import Run
from trainer.run.model_label import ModelLabel

SETTINGS_OF_ALL: dict[str, Any] = {
    "template": "t",
    "tokenizer": "k",
    "limit": None,
    "rollouts": 4,
    "temperature": 0.6,
    "top_p": 0.95,
    "max_tokens": 32_768,
    "seed": 0,
    "dtype": "auto",
    "answer_style": "boxed",
}
Answer = Callable[[Problem, int], str | None]
"""A rollout's answer to a problem; None if the budget cut the rollout."""


SETS = {"aime2025": 10, "amc2023": 12}
"""Sets of an evaluation and their numbers of problems."""


def first(count: int) -> Callable[[Problem, int], str]:
    """Returns the answers of a model that always solves the first problems of each set."""

    def answer(problem: Problem, k: int) -> str:
        return problem.answer if int(problem.answer) < count else "x"

    return answer


def empty_run(folder: Path) -> Run:
    """A run of the tiny recipe that only has its configuration."""
    run = Run(folder)
    configs.write(_config(), run.config)
    return run


@functools.cache
def _config() -> DictConfig:
    return configs.load("tiny", ["data.dir=nowhere"])


def evaluation(
    run: Run,
    label: str,
    sets: Mapping[str, int],
    answer: Answer,
    *,
    complete: bool = True,
    tokens: Callable[[str, int], int] = lambda problem, k: 1_000 + 10 * k,
    timed: Mapping[str, Any] | None = None,
    grader: int = rules.ANSWERS,
    **settings: Any,
) -> Path:
    """Writes an evaluation; ``sets`` are the numbers of their problems, whose gold answers count
    from 0, ``timed`` what its manifest says of devices and time, and ``grader`` the version that
    graded it.
    """
    chosen = SETTINGS_OF_ALL | {"benchmarks": {name: f"hash of {name}" for name in sets}} | settings
    hashed = f"{abs(hash(str(sorted((k, str(v)) for k, v in chosen.items())))):x}"
    folder = run.evaluation("+".join(sets), ModelLabel.parse(label), hashed)
    folder.mkdir(parents=True)
    problems = [
        Problem(f"{name}/{i}", "?", str(i), name)
        for name, count in sets.items()
        for i in range(count)
    ]
    write_json(folder / SETTINGS, {"model": {"label": label, "identity": {}}, **chosen})
    benchmarks.write_problems(folder / PROBLEMS, problems)
    grades = []
    with (folder / rollout_files.ROLLOUTS).open("w") as f:
        for p in problems:
            for k in range(chosen["rollouts"]):
                said = answer(p, k)
                text, finish = (
                    ("<think>", "length")
                    if said is None
                    else (f"<think></think>\\boxed{{{said}}}", "stop")
                )
                length = chosen["max_tokens"] if said is None else tokens(p.id, k)
                rollout_files.append(
                    f, Rollout((p.set, p.id, k), 0, text, length, finish, "engine-0", 1.0)
                )
                state = "truncated" if said is None else "boxed"
                grades.append(
                    Grade((p.set, p.id, k), state, said, *2 * (said == p.answer,), grader)
                )
    if complete:
        rollout_files.write_grades(folder / rollout_files.GRADES, grades)
        write_metrics(folder, problems, chosen["rollouts"], chosen["max_tokens"])
        write_json(folder / MANIFEST, {"files": {}, **(timed or {})})
    return folder
