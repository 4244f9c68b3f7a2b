"""A trained run whose evaluations a test writes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.files import MANIFEST, write_json, write_text
from common.records import Problem
from tests.eval.report.pages import step
from tests.eval.runs import Answer, empty_run, evaluation
from trainer.recipe import load as configs
from trainer.run.folder import Run

SETS = {"aime2025": 30, "amc2023": 40}
Evaluate = Callable[..., Path]


def solves(*ranges: range, of: int = 4) -> Answer:
    """Solves the problems of each set in any range, in ``of`` of its four rollouts."""

    def answer(problem: Problem, k: int) -> str:
        number = int(problem.answer)
        return problem.answer if k < of and any(number in r for r in ranges) else "x"

    return answer


def trained(run: Run, losses: dict[int, float | None]) -> None:
    """Writes metrics of 40 steps, with held-out losses after some of them."""
    attempt = run.new_attempt()
    configs.write(configs.read(run.config), attempt.config)
    write_json(attempt.provenance, {"git": "c0ffee", "versions": {}, "first_step": 0})
    lines = (
        replace(step(n), val_loss=losses.get(n), val_entropy=0.3 if losses.get(n) else None)
        for n in range(1, 41)
    )
    write_text(attempt.metrics, "".join(line.json() for line in lines))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return empty_run(Path("runs/mine"))


@pytest.fixture
def evaluated(run: Run) -> Evaluate:
    """Writes a model's evaluation, and its export."""

    def write(label: str, answer: Answer, sets: dict[str, int] = SETS, **more: Any) -> Path:
        export = run.root / "export" / label / MANIFEST
        if not export.exists():
            write_json(export, {"average": {"members": [], "base": "0"}})
        return evaluation(run, label, sets, answer, **more)

    return write
