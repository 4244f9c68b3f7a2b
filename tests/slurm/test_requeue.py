"""Which jobs go back into the queue."""

from pathlib import Path

import pytest

from data_prep.files import write_json, write_text
from slurm import journal
from slurm.requeue import CRASHES, Decision, Ended, decide, of_training
from trainer.rundir import Run


def history(*ended: Ended) -> list[dict]:
    return [{"ended": e.kind, "progress": e.progress} for e in ended]


def test_a_stop_is_requeued_at_once_and_a_crash_later_each_time() -> None:
    assert decide(Ended("stopped", 0), []) == Decision(True, "stopped on purpose")
    before: list[Ended] = []
    for step, pause in ((10, 60), (20, 120), (30, 240)):
        decision = decide(Ended("crashed", step), history(*before))
        assert (decision.again, decision.pause) == (True, pause)
        before.append(Ended("crashed", step))
    assert len(before) == CRASHES
    assert decide(Ended("crashed", 40), history(*before)) == Decision(False, "crashed 4 times in a row")


def test_a_stop_between_crashes_starts_the_count_anew() -> None:
    before = history(*(Ended("crashed", step) for step in (1, 2, 3)), Ended("stopped", 4))
    assert decide(Ended("crashed", 5), before).pause == 60


@pytest.mark.parametrize("kind", ["stopped", "crashed"])
def test_a_job_that_got_nowhere_stops(kind: str) -> None:
    decision = decide(Ended(kind, 10), history(Ended("stopped", 10)))
    assert not decision.again and "no progress" in decision.reason
    assert decide(Ended(kind, 11), history(Ended("stopped", 10))).again


@pytest.mark.parametrize("kind", ["done", "refused"])
def test_what_is_done_or_refused_is_not_requeued(kind: str) -> None:
    assert not decide(Ended(kind, 10), []).again


def test_rank_zeros_word_comes_before_the_outcome_and_that_before_sruns_code(tmp_path: Path) -> None:
    run = Run(tmp_path)
    # srun's 137 is of the ranks that it killed after the first had failed.
    assert of_training(run, 137, "7", since=0) == ("crashed", 137)
    assert of_training(run, 138, "7", since=0) == ("stopped", 138)
    write_json(run.new_attempt() / "outcome.json", {"status": "stopped", "step": 3, "total": 9})
    assert of_training(run, 137, "7", since=0) == ("stopped", 137)
    assert of_training(run, 137, "7", since=1) == ("crashed", 137), "an older attempt's outcome"
    write_text(tmp_path / ".exit-7", "2\n")
    assert of_training(run, 137, "8", since=0) == ("stopped", 137), "another job's word"
    assert of_training(run, 137, "7", since=0) == ("refused", 2)
    assert of_training(run, 137, "7", since=0) == ("stopped", 137), "said once"


def test_a_journal_survives_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "requeues.jsonl"
    journal.append(path, {"job": "1"})
    with path.open("a") as f:
        f.write('{"job": ')
    journal.append(path, {"job": "2"})
    assert [line["job"] for line in journal.read(path)] == ["1", "2"]
