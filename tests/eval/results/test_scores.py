"""What a terminal shows of evaluations: the table, the interval, the next commands."""

import json
from pathlib import Path

import pytest

from common.errors import UserError
from eval.grading.intervals import interval
from eval.grading.metrics import METRICS
from eval.overview import next_commands
from eval.results import evaluation as evaluations
from eval.results import scores
from eval.results.compare import compare
from tests.eval.runs import SETS, empty_run, evaluation, first
from trainer.run.folder import Run
from warmstart.cli import main


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return empty_run(Path("runs/mine"))


def test_the_table_has_each_set_and_all(run: Run) -> None:
    folder = evaluation(run, "step_7", SETS, first(4))
    text = scores.table(evaluations.read(folder))
    rows = [line.split(" | ")[0] for line in text.splitlines()[2:5]]
    assert rows == ["| aime2025 (10 problems)", "| amc2023 (12 problems)", "| all (22 problems)"]
    found = interval([[1.0] * 4 + [0.0] * 6, [1.0] * 4 + [0.0] * 8])
    exact = f"{100 * 8 / 22:.2f} % [{found.lower * 100:.1f}, {found.upper * 100:.1f}]"
    assert exact in text.splitlines()[4] and "brackets: 95 % intervals" in text
    assert "†" not in text or "† Gaffke" in text


def test_status_shows_the_accuracy_of_what_is_done(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    done = evaluation(run, "base", SETS, first(0))
    other = evaluation(run, "step_7", SETS, first(4))
    broken = evaluation(run, "step_9", SETS, first(4))
    (broken / METRICS).unlink()
    (broken / "grades.jsonl").write_text("")
    assert main(["status", "mine"]) == 0
    text = capsys.readouterr().out
    assert f"{done.name}: pass@1 0.00 % [0.0, " in text and "† Gaffke's bound" in text
    assert f"{other.name}: pass@1 36.36 % [" in text
    assert f"{broken.name}: damaged: " in text
    assert main(["status", "mine", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["scores"][other.name]["percent"] == pytest.approx(100 * 8 / 22)
    assert values["scores"][other.name]["low"] < 30 < values["scores"][other.name]["high"]
    assert values["evaluations"][other.name] == "done"


def test_next_commands_work_as_printed(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    def after(folder: Path) -> list[str]:
        return [command for command, _ in next_commands.after(run, evaluations.read(folder))]

    assert after(evaluation(run, "base", SETS, first(1))) == ["warmstart report mine"]
    evaluation(run, "step_7", SETS, first(4))
    found = after(evaluation(run, "step_9", SETS, first(5)))
    pool = evaluation(run, "step_9", {"rl_pool": 3}, first(1))
    assert after(pool) == ["warmstart rl mine 9"]
    assert found == [
        "warmstart report mine",
        "warmstart compare mine@base mine@9",
        "warmstart choose mine",
        "warmstart rl mine 9",
    ]
    for command in found[:3]:
        assert main(command.split()[1:]) == 0, capsys.readouterr().err


def test_one_evaluation_is_not_compared_with_itself(run: Run) -> None:
    evaluation(run, "step_7", SETS, first(4))
    with pytest.raises(UserError, match=r"^mine and runs/mine@7 are the same evaluation \("):
        compare(["mine", "runs/mine@7"])
