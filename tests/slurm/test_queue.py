"""What Slurm is asked about jobs, with stand-ins for its commands: evaluations that have ended, and
their checkpoints.
"""

from pathlib import Path

import pytest

from slurm.queue import jobs, submit_evaluations
from slurm.queue.submit_evaluations import note_ended
from trainer.checkpoint.retention import Retention, prune
from trainer.recipe import load as configs
from trainer.run import frozen_config
from trainer.run.folder import SUBMISSIONS, Run


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on PATH for stand-ins."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return folder


def program(folder: Path, name: str, text: str) -> None:
    """A program that also records its arguments, one per line."""
    path = folder / name
    path.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" >>'{folder}/{name}.calls'\n{text}\n")
    path.chmod(0o755)


def calls(folder: Path, name: str) -> list[str]:
    path = folder / f"{name}.calls"
    return path.read_text().splitlines() if path.exists() else []


def test_jobs_that_may_still_run_have_not_ended(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQUEUE_USERS", "nobody")
    alive = ("PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "REQUEUED")
    alive += ("REQUEUE_HOLD", "SPECIAL_EXIT", "STOPPED", "STAGE_OUT", "A_NEW_ONE")
    dead = ("CANCELLED", "COMPLETED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")
    shown = "\n".join(f"{number} {state}" for number, state in enumerate((*alive, *dead)))
    program(programs, "squeue", f'[ -z "$SQUEUE_USERS" ] && cat <<"."\n{shown}\n.')
    asked = [*map(str, range(len(alive) + len(dead))), "99", "5;other"]
    states = jobs.ended(asked)
    assert states is not None
    assert list(states.values()) == [*dead, "UNKNOWN"] and "99" in states
    *_, option = calls(programs, "squeue")
    assert option == f"--jobs={','.join(asked[:-1])}"


@pytest.mark.parametrize(
    ("answer", "known"),
    [
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", {"7": "UNKNOWN"}),
        ("echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1", None),
        ("exec sleep 30", None),
        (None, None),
    ],
)
def test_only_slurms_own_answer_counts(
    answer: str | None,
    known: dict[str, str] | None,
    programs: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs, "ASK_SECONDS", 0.3)
    if answer is None:
        monkeypatch.setenv("PATH", str(programs))
    else:
        program(programs, "squeue", answer)
    assert jobs.ended(["7"]) == known


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run whose checkpoints have all been submitted; two are kept anyway."""
    words = [f"run.root={tmp_path}", "train.keep_last=2"]
    config = configs.load("tiny", words)
    run = frozen_config.start(config)
    configs.write(config, run.new_attempt().config)
    for step in (10, 20, 30, 40, 50):
        run.checkpoint(step).mkdir(parents=True)
        (run.checkpoint(step) / "manifest.json").write_text("{}")
        run.note(SUBMISSIONS, {"label": str(step), "settings": "x", "job": str(9000 + step)})
    return run


def pruned(run: Run) -> list[int]:
    prune(run, Retention(2, None, 0))
    return run.checkpoints


def test_a_checkpoint_whose_evaluation_has_died_is_pruned(
    run: Run, programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program(programs, "squeue", "echo '9010 CANCELLED'; echo '9030 PENDING'; echo '9050 FAILED'")
    assert pruned(run) == [10, 20, 30, 40, 50]
    assert note_ended(run) and pruned(run) == [30, 40, 50]
    *_, asked = calls(programs, "squeue")
    assert asked == "--jobs=9010,9020,9030", "what is kept anyway is not asked about"
    out = capsys.readouterr().out
    assert "job 9010, which evaluates 10, has ended (CANCELLED)" in out
    assert "job 9020, which evaluates 20, has ended (UNKNOWN)" in out
    assert note_ended(run) and len(run.notes(SUBMISSIONS)) == 7, "noted once"


def test_where_slurm_cannot_be_asked_all_checkpoints_stay(run: Run, programs: Path) -> None:
    program(programs, "squeue", "echo '9010 CANCELLED'; exit 1")
    assert note_ended(run) and pruned(run) == [10, 20, 30, 40, 50]


def test_slurm_is_not_asked_where_nothing_would_be_pruned(run: Run, programs: Path) -> None:
    program(programs, "squeue", "")
    for step in (10, 20, 30):
        run.export(step).mkdir(parents=True)
        (run.export(step) / "manifest.json").write_text("{}")
    assert not note_ended(run) and pruned(run) == [40, 50]
    assert not note_ended(run) and calls(programs, "squeue") == []


def test_an_evaluation_that_was_put_back_into_the_queue_is_waited_for(
    run: Run, programs: Path
) -> None:
    program(programs, "squeue", "echo '9010 FAILED'; echo '9020 PENDING'; echo '9030 RUNNING'")
    assert note_ended(run) and 10 not in run.awaited
    program(programs, "squeue", "echo '9010 PENDING'; echo '9020 PENDING'; echo '9030 RUNNING'")
    assert note_ended(run) and 10 in run.awaited
    assert pruned(run) == [10, 20, 30, 40, 50]


def test_a_watcher_asks_once_in_a_while(
    run: Run, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(programs, "squeue", "exit 1")
    rounds = iter([False, False, True])
    monkeypatch.setattr(submit_evaluations, "has_finished", lambda _: next(rounds))
    monkeypatch.setattr(submit_evaluations, "submit_missing", lambda *_: 0)
    assert submit_evaluations.watch(run, poll=0.01)
    assert len(calls(programs, "squeue")) == 4, "one call of four arguments"


def test_sbatch_answers_with_the_jobs_id_or_its_error(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    program(programs, "sbatch", '[ -z "$SLURM_JOB_ID" ] && echo 12')
    assert jobs.submit(["sbatch", "x.sh"], tmp_path)[0] == "12"
    program(programs, "sbatch", "echo '12;other'")
    assert jobs.submit(["sbatch", "x.sh"], tmp_path)[0] == "12;other"
    program(programs, "sbatch", "echo 'sbatch: error: no' >&2; exit 1")
    assert jobs.submit(["sbatch", "x.sh"], tmp_path) == (None, "sbatch: error: no")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert jobs.submit(["sbatch", "x.sh"], tmp_path) == (None, "sbatch: No such file or directory")
