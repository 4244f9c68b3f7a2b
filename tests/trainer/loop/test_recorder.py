"""Steps recorded while the next one runs leave what steps leave that are recorded at once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from common.files import read_json
from tests.conftest import ROOT, environment, warmstart
from tests.faults.harness import differences
from tests.trainer.loop.late_runs import (
    BROKEN,
    HIT,
    RECIPE,
    SAVE_EVERY,
    STEPS,
    TRACED,
    VALIDATE_EVERY,
)
from trainer.run.folder import Run
from trainer.run.step_metrics import of_attempt

SETTLED = {
    *range(SAVE_EVERY, STEPS, SAVE_EVERY),
    *range(VALIDATE_EVERY, STEPS, VALIDATE_EVERY),
    TRACED - 1,
    STEPS,
}
"""Steps that are saved or validated, and the one before those that are traced."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all runs of ``late_runs`` lie."""
    made = tmp_path_factory.mktemp("late")
    warmstart("data", "tiny", *RECIPE, folder=made)
    command = [sys.executable, "-W", "ignore", "-m", "tests.trainer.loop.late_runs", str(made)]
    subprocess.run(command, cwd=ROOT, env=environment(), check=True)
    return made


def run_of(folder: Path, name: str) -> Run:
    return Run(folder / "runs" / name)


def events(folder: Path, name: str) -> list[str]:
    return (folder / f"events-{name}").read_text().splitlines()


def test_metrics_alarms_and_checkpoints_are_those_of_steps_recorded_at_once(folder: Path) -> None:
    once, late = (run_of(folder, name) for name in ("once", "late"))
    assert read_json(folder / "codes.json")["late"] == [[0, 0]]
    assert differences(once, late) == []
    steps, others = (of_attempt(run.attempts[0]) for run in (late, once))
    assert list(steps) == list(range(1, STEPS + 1))
    assert [step for step, values in steps.items() if values["skipped"]] == [BROKEN]
    for step, values in steps.items():
        assert values["alarms"] == others[step]["alarms"]
        assert values["val_entropy"] == others[step]["val_entropy"]
        assert 0 < values["data_seconds"] < values["seconds"]
    (alarm,) = steps[BROKEN]["alarms"]
    assert alarm["kind"] == "not_finite" and len(alarm["rows"]) > 0
    assert once.checkpoints == late.checkpoints == [4, 8, 12]


def test_a_step_is_recorded_during_the_next_one_unless_something_waits_for_it(
    folder: Path,
) -> None:
    late = events(folder, "late")
    for step in range(1, STEPS + 1):
        launched, recorded = late.index(f"launch {step}"), late.index(f"record {step}")
        between = late[launched + 1 : recorded]
        assert [event for event in between if event.startswith("launch")] in (
            [[]] if step in SETTLED else [[], [f"launch {step + 1}"]]
        )
        if step < SAVE_EVERY:  # later a save that has ended may want the step
            assert f"launch {step + 1}" in between
    assert events(folder, "once") == [
        f"{what} {step}" for step in range(1, STEPS + 1) for what in ("launch", "record")
    ]


def test_a_stop_asked_for_during_a_step_comes_after_it(folder: Path) -> None:
    stopped = run_of(folder, "stopped")
    assert read_json(folder / "codes.json")["stopped"] == [[75, 75], [0, 0]]
    first, second = stopped.attempts
    assert read_json(first.outcome) == {"status": "stopped", "step": HIT, "total": STEPS}
    assert list(of_attempt(first)) == list(range(1, HIT + 1))
    assert read_json(second.provenance)["first_step"] == HIT
    assert differences(run_of(folder, "once"), stopped) == []


def test_a_kill_while_a_step_is_not_recorded_loses_nothing(folder: Path) -> None:
    killed = run_of(folder, "killed")
    (codes, again) = read_json(folder / "codes.json")["killed"]
    assert codes[1] == -9 and codes[0] not in (0, 75) and again == [0, 0]
    assert list(of_attempt(killed.attempts[0])) == list(range(1, BROKEN))
    assert differences(run_of(folder, "once"), killed) == []


def test_lost_weights_are_told_with_the_same_step_and_rows(folder: Path) -> None:
    outcomes = [
        read_json(run_of(folder, name).attempts[0].outcome) for name in ("lost", "lost_once")
    ]
    codes = json.loads((folder / "codes.json").read_text())
    assert codes["lost"] == codes["lost_once"] == [[1, 1]]
    assert outcomes[0] == outcomes[1]
    assert "no finite gradient in 3 steps in a row (loss " in outcomes[0]["reason"]
    assert "the rows of step 3: " in outcomes[0]["reason"]
    assert events(folder, "lost")[-2:] == ["launch 4", "record 3"]
    assert events(folder, "lost_once")[-1] == "record 3"
