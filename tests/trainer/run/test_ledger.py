"""The job scripts' ledgers: a spoilt line is told once and ends nothing."""

import json
from pathlib import Path

import pytest

from trainer.checkpoint.retention import Retention, prune
from trainer.run.folder import REQUEUES, SUBMISSIONS, Run
from trainer.run.status import status

MIXED = '{"time": "2026", "label": "2", "setti{"time": "2026"}\n'
SPOILT = (
    MIXED.encode(),
    b"\0" * 40 + b"\n",
    b'{"label": "\xff", "job": "3"}\n',
    b"[1]\n",
    b'{"label": "last", "job": "3"}\n',
    b'{"label": "3"}\n',
    b'{"label": "3", "job": 3}\n',
)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def submission(label: str, job: str, **more: str | None) -> dict[str, str | None]:
    return {"label": label, "settings": "0", "job": job, **more}


@pytest.mark.parametrize("line", SPOILT)
def test_a_spoilt_line_is_told_once_and_skipped(
    run: Run, line: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    run.note(SUBMISSIONS, submission("1", "1"))
    with (run.root / SUBMISSIONS).open("ab") as f:
        f.write(line)
    run.note(SUBMISSIONS, submission("2", "2"))
    for _ in range(2):
        assert [note["job"] for note in run.notes(SUBMISSIONS)] == ["1", "2"]
    assert run.awaited == {1, 2}
    captured = capsys.readouterr()
    assert captured.out == ""
    (told,) = captured.err.splitlines()
    assert told.startswith(
        f"warmstart: {run.root / SUBMISSIONS}, line 2 is damaged and is skipped: "
    )


def test_a_line_in_the_making_is_not_told_and_its_remains_spoil_no_other(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run.note(SUBMISSIONS, submission("1", "1"))
    with (run.root / SUBMISSIONS).open("a") as f:
        f.write('{"time": "2026", "la')
    assert len(run.notes(SUBMISSIONS)) == 1 and capsys.readouterr().err == ""
    run.note(SUBMISSIONS, submission("2", "2"))
    assert '"la\n' in (run.root / SUBMISSIONS).read_text(), "it may be another process's line"
    assert [note["job"] for note in run.notes(SUBMISSIONS)] == ["1", "2"]


def test_a_line_that_is_noted_again_has_the_time_of_that(run: Run) -> None:
    run.note(SUBMISSIONS, submission("1", "1", time="2001"))
    (note,) = run.notes(SUBMISSIONS)
    assert next(iter(note)) == "time" and note["time"] > "2026"


def test_spoilt_ledgers_stop_neither_pruning_nor_status(run: Run) -> None:
    for step in (1, 2, 3):
        run.checkpoint(step).mkdir(parents=True)
        (run.checkpoint(step) / "manifest.json").write_text("{}")
    run.note(SUBMISSIONS, submission("1", "1"))
    for name in (SUBMISSIONS, REQUEUES):
        with (run.root / name).open("ab") as f:
            f.writelines(SPOILT)
    run.new_attempt()
    prune(run, Retention(1, None, 0))
    assert run.checkpoints == [1, 3]
    assert status(run)["evaluations"] == {
        "base": "pending",
        "step_1": "pending, job 1",
        "step_3": "pending",
    }


def test_an_evaluation_whose_job_has_ended_is_not_awaited(run: Run) -> None:
    for line in (
        submission("1", "1"),
        submission("2", "2"),
        submission("1", "1", ended="CANCELLED"),
        submission("2", "2", ended="FAILED"),
        submission("2", "2", ended=None),  # someone has requeued it
        submission("3", "3", ended="TIMEOUT"),
        submission("3", "4"),  # its successor
    ):
        run.note(SUBMISSIONS, line)
    assert run.awaited == {2, 3}
    assert status(run)["evaluations"] == {
        "base": "pending",
        "step_1": "cancelled, job 1",
        "step_2": "pending, job 2",
        "step_3": "pending, job 4",
    }
    assert json.loads((run.root / SUBMISSIONS).read_text().splitlines()[2])["ended"] == "CANCELLED"
