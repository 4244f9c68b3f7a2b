"""The command: ``choose``, and ``rl`` without a step, which takes its choice."""

from pathlib import Path

import pytest

from common.files import MANIFEST, write_json
from tests.eval.choice.conftest import SETS, solves
from tests.eval.runs import empty_run, evaluation
from trainer.run.folder import Run
from warmstart.cli import main

FEW, MANY = solves(range(4)), solves(range(25))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run with the exports of steps 10 and 20, made from a dataset that is gone."""
    monkeypatch.chdir(tmp_path)
    run = empty_run(Path("runs/mine"))
    for step in (10, 20):
        write_json(run.export(step) / MANIFEST, {"dataset": "deleted"})
    return run


def rl(run: Run, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What ``rl`` says of its start before the missing dataset ends it."""
    assert main(["rl", "mine", *words]) == 2
    said = capsys.readouterr()
    assert "is not built" in said.err or "dataset" in said.err, said.err
    return said.out


def test_choose_prints_the_recommendation(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["choose", "mine"]) == 2
    assert "step_10 is not evaluated: `warmstart eval runs/mine 10" in capsys.readouterr().err
    evaluation(run, "step_10", SETS, MANY)
    evaluation(run, "step_20", SETS, FEW)
    assert main(["choose", "mine"]) == 0
    assert capsys.readouterr().out.startswith("**step_10 is recommended**")


def test_rl_takes_the_choice_and_says_why(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    evaluation(run, "step_10", SETS, MANY)
    assert rl(run, capsys).startswith(
        "== RL starts from step 20, the newest export: warmstart choose runs/mine recommends"
    )
    evaluation(run, "step_20", SETS, FEW)
    assert rl(run, capsys) == (
        "== RL starts from step_10, as every other candidate is significantly worse in pass@4\n"
    )
    assert rl(run, capsys, "20") == ""


def test_rl_cannot_take_an_average(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    evaluation(run, "step_10", SETS, FEW)
    evaluation(run, "avg_10_20", SETS, MANY)
    assert rl(run, capsys) == (
        "== RL starts from step_10, the rule's choice among the steps of SFT: it cannot start from "
        "avg_10_20, which comes first because every other candidate is significantly worse in "
        "pass@4\n"
    )
