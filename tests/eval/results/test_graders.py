"""Figures of different versions of the grader are never shown together."""

import json
import re
from pathlib import Path

import pytest

from common.errors import UserError
from common.files import read_json, write_json
from common.records import Problem
from data_prep import rules
from eval import evaluate
from eval.generation import rollout_files
from eval.grading.metrics import METRICS, TOTAL
from eval.report import report
from eval.report.html.write import write as write_page
from eval.results.compare import compare
from eval.results.evaluation import read
from tests.eval.runs import empty_run, evaluation
from trainer.recipe import load as configs
from trainer.run.folder import Run

SETS = {"aime2025": 6, "amc2023": 6}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return empty_run(tmp_path / "runs" / "mine")


def right_half(problem: Problem, k: int) -> str | None:
    return problem.answer if k % 2 else "x"


def without_versions(folder: Path) -> None:
    """The grades and figures as they were before versions were recorded."""
    path = folder / rollout_files.GRADES
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert all(line.pop("grader") == rules.UNRECORDED for line in lines)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    figures = read_json(folder / METRICS)
    assert all(values.pop("grader") == rules.UNRECORDED for values in figures.values())
    write_json(folder / METRICS, figures)


def test_a_mixture_is_refused_until_the_older_one_is_graded_again(run: Run) -> None:
    old = evaluation(run, "base", SETS, right_half, grader=rules.UNRECORDED)
    without_versions(old)
    new = evaluation(run, "step_7", SETS, right_half)
    config = configs.read(run.config)
    fix = re.escape(f"(1, {rules.ANSWERS}) cannot be shown together: warmstart grade {old}")
    for show in (
        lambda: report.write(run, config),
        lambda: write_page(run, config),
        lambda: compare([f"{run.root}@base", str(run.root)]),
        lambda: compare([str(new), str(old)]),
    ):
        with pytest.raises(UserError, match=f"{fix}$"):
            show()
    assert not run.report.exists()
    evaluate.regrade(old)
    assert read(old).grader == rules.ANSWERS == read_json(old / METRICS)[TOTAL]["grader"]
    assert {g.grader for g in read(old).grades.values()} == {rules.ANSWERS}
    assert f"| grader's version | `{rules.ANSWERS}` |" in report.write(run, config).read_text()
    assert compare([str(new), str(old)])


def test_another_protocols_evaluation_is_part_of_the_report(run: Run) -> None:
    evaluation(run, "step_7", SETS, right_half)
    other = evaluation(run, "step_7", {"amc2023": 6}, right_half, grader=rules.UNRECORDED, seed=1)
    with pytest.raises(UserError, match=f"warmstart grade {re.escape(str(other))}$"):
        report.write(run, configs.read(run.config))


def test_evaluations_of_one_older_version_are_shown_as_they_are(run: Run) -> None:
    for label in ("base", "step_7"):
        without_versions(evaluation(run, label, SETS, right_half, grader=rules.UNRECORDED))
    found = report.write(run, configs.read(run.config)).read_text()
    assert "| grader's version | `1` |" in found
    assert compare([f"{run.root}@base", str(run.root)])
