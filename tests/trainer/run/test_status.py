"""Where a run stands: what the files of a real run say, and what is added to them while it goes
on.
"""

import json
import shutil
from pathlib import Path

import pytest

from common.files import MANIFEST, write_json, write_lock
from tests.conftest import STEPS
from tests.eval.runs import empty_run
from tests.trainer.run.rl_runs import begun, line
from trainer.run.folder import Attempt, Run, lock_of
from trainer.run.model_label import BASE, ModelLabel
from trainer.run.status import fields, is_trained, status
from warmstart.cli import main


@pytest.fixture
def run(short_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A copy of a finished run without evaluations, as the current folder's."""
    shutil.copytree(
        short_run,
        tmp_path / "runs" / "tiny",
        ignore=shutil.ignore_patterns("export", "wandb", "evals"),
    )
    monkeypatch.chdir(tmp_path)
    return Run(Path("runs/tiny"))


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["status", "tiny"]) == 0
    return capsys.readouterr().out


def test_a_finished_run(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    values = status(run)
    assert json.loads(json.dumps(values)) == values
    assert values["step"] == values["total"] == values["checkpoints"][-1] == STEPS and is_trained(
        run
    )
    assert values["attempts"] == [
        {"attempt": 1, "outcome": "finished", "reason": None, "first_step": 0, "last_step": STEPS}
    ]
    assert not values["running"] and values["evaluations"] == {
        "base": "pending",
        f"step_{STEPS}": "pending",
    }
    used = {cost["stage"]: cost for cost in values["device_hours"]}["training"]
    seconds = sum(json.loads(line)["seconds"] for line in run.metrics.read_text().splitlines())
    assert (
        used["hours"] == pytest.approx(2 * seconds / 3600) and used["unit"] == "CPU process-hours"
    )
    text = shown(capsys)
    assert f"step {STEPS} of {STEPS}, loss " in text and " tokens/s" in text
    assert "not running" in text and "base: pending" in text and "attempts/1/log" in text


def test_a_run_that_goes_on_after_crashes(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Three attempts besides the first: failed, killed and requeued, and the one that is at
    work.
    """
    for number in (2, 3, 4):
        write_json(Attempt(run.root / "attempts" / str(number)).provenance, {"first_step": STEPS})
        shutil.copy(run.attempts[0].config, run.attempts[-1].config)
        run.attempts[-1].log.touch()
    write_json(run.attempts[1].outcome, {"status": "failed", "reason": "no space"})
    note = {
        "job": "7",
        "what": "train",
        "count": 2,
        "attempt": 3,
        "ended": "crashed",
        "progress": STEPS,
        "requeued": True,
        "reason": "crashed, 2 of at most 3 times in a row",
    }
    (run.root / "requeues.jsonl").write_text(json.dumps(note) + '\n{"torn')
    (run.root / "submissions.jsonl").write_text(
        json.dumps({"label": str(STEPS), "job": "77"}) + "\n"
    )
    base = run.evaluation("t0", BASE, "0" * 8)
    with write_lock(run.lock), write_lock(base / "lock"):
        values, text = status(run), shown(capsys)
    assert [a["outcome"] for a in values["attempts"]] == [
        "finished",
        "failed",
        "cut off",
        "running",
    ]
    assert values["running"] and not is_trained(run)
    assert values["evaluations"] == {base.name: "running", f"step_{STEPS}": "pending, job 77"}
    assert "failed: no space" in text and "cut off: crashed, 2 of at most 3" in text
    assert "tail -f runs/tiny/attempts/4/log" in text
    assert status(run)["attempts"][-1]["outcome"] == "cut off"
    assert status(run)["evaluations"][base.name] == "interrupted"


def test_a_run_that_has_only_begun(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("attempts", "checkpoints", "metrics.jsonl", "latest"):
        path = run.root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    text = shown(capsys)
    assert "step 0" in text and "checkpoints" in text and "none yet" in text


def test_rl_is_shown(tmp_path: Path) -> None:
    run = empty_run(tmp_path / "mine")
    assert status(run)["rl"] == [] and "RL" not in dict(fields(status(run), {}))
    start = begun(run, STEPS, "0a0a0a0a", checkpoints=(1, 2), lines=[line(1, 0.25), line(2, 0.5)])
    with start.metrics.open("a") as f:
        f.write('{"step": 3, "da')
    begun(run, STEPS, "0b0b0b0b")
    write_json(run.export(ModelLabel(rl=2, start="0a0a0a0a")) / MANIFEST, {"step": STEPS})
    with write_lock(lock_of(start.root)):
        values = status(run)
    text = "\n".join(text for _, text in fields(values, {}))
    assert json.loads(json.dumps(values)) == values
    started, waiting = values["rl"]
    assert started == {
        "start": f"step_{STEPS}-0a0a0a0a",
        "running": True,
        "step": 2,
        "total": 40,
        "reward": 0.5,
        "checkpoints": [1, 2],
    }
    assert waiting["step"] == 0 and waiting["reward"] is None and not waiting["running"]
    assert f"step_{STEPS}-0a0a0a0a, running: step 2 of 40, reward 0.500, checkpoints 1, 2" in text
    assert f"step_{STEPS}-0b0b0b0b, not running: step 0 of 40, checkpoints none" in text
    assert values["exports"] == [] and values["rl_exports"] == ["rl-2-0a0a0a0a"]


def test_rl_has_the_steps_of_its_newest_attempt(tmp_path: Path) -> None:
    run = empty_run(tmp_path / "mine")
    start = begun(run, STEPS, "0a0a0a0a")
    for total in (60, 80):
        attempt = start.new_attempt()
        attempt.values.parent.mkdir()
        attempt.values.write_text(f"trainer: {{total_training_steps: {total}}}\n")
    start.new_attempt()
    assert status(run)["rl"][0]["total"] == 80


def test_the_newest_alarms_are_shown_and_why_an_attempt_was_held(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    (attempt,) = run.attempts
    lines = [json.loads(line) for line in attempt.metrics.read_text().splitlines()]
    for made in lines[:7]:
        made["alarms"] = [{"kind": "loss", "text": f"high {made['step']}"}]
    attempt.metrics.write_text("".join(json.dumps(made) + "\n" for made in lines))
    ended = json.loads(attempt.outcome.read_text())
    write_json(attempt.outcome, ended | {"status": "stopped", "alarm": "ALARM (loss) x"})
    values = status(run)
    assert len(values["alarms"]) == 7 and values["attempts"][-1]["reason"] == "ALARM (loss) x"
    text = shown(capsys)
    assert [f"high {n}\n" in text for n in range(1, 8)] == [False] * 2 + [True] * 5
