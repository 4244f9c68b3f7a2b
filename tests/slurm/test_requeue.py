"""Which jobs go back into the queue."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common.files import write_json
from slurm.queue.exit_code import leave_code, take_code
from slurm.queue.requeue import CRASHES, Decision, Ended, decide, held, of_training
from tests.conftest import ROOT, environment
from trainer.recipe import load as configs
from trainer.run import frozen_config
from trainer.run.folder import REQUEUES, SUBMISSIONS, Run


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
    assert decide(Ended("crashed", 40), history(*before)) == Decision(
        False, "crashed 4 times in a row"
    )


def test_a_stop_between_crashes_starts_the_count_anew() -> None:
    before = history(*(Ended("crashed", step) for step in (1, 2, 3)), Ended("stopped", 4))
    assert decide(Ended("crashed", 5), before).pause == 60


@pytest.mark.parametrize("before", ["stopped", "crashed"])
@pytest.mark.parametrize("kind", ["stopped", "crashed"])
def test_a_job_that_got_nowhere_stops_but_for_its_first_crash(kind: str, before: str) -> None:
    decision = decide(Ended(kind, 10), history(Ended(before, 10)))
    assert decision.again == (kind == "crashed" and before == "stopped")
    assert decision.again or "no progress" in decision.reason
    assert decide(Ended(kind, 11), history(Ended(before, 10))).again


@pytest.mark.parametrize("kind", ["done", "refused"])
def test_what_is_done_or_refused_is_not_requeued(kind: str) -> None:
    assert not decide(Ended(kind, 10), []).again


def test_a_run_whose_first_task_said_nothing_is_judged_by_its_outcome(tmp_path: Path) -> None:
    run = Run(tmp_path)
    # srun's 137 is of the ranks that it killed after the first had failed.
    assert [of_training(run, code, since=0) for code in (137, 138, 75, 0)] == [
        "crashed",
        "stopped",
        "stopped",
        "done",
    ]
    write_json(run.new_attempt().outcome, {"status": "stopped", "step": 3, "total": 9})
    assert of_training(run, 137, since=0) == "stopped"
    assert of_training(run, 3, since=0) == "refused", "an earlier job's outcome"
    assert of_training(run, 137, since=1) == "crashed", "an older attempt's outcome"
    write_json(run.new_attempt().outcome, {"status": "stopped", "step": 5, "total": 9})
    shutil.rmtree(run.attempts[0].root)
    assert of_training(run, 137, since=1) == "stopped", "an older attempt has been deleted"


def test_a_stop_for_an_alarm_is_held_even_though_it_made_progress(tmp_path: Path) -> None:
    run = Run(tmp_path)
    outcome = {"status": "stopped", "step": 3, "total": 9}
    write_json(run.new_attempt().outcome, outcome | {"alarm": "ALARM (loss) at step 3: high"})
    assert (of_training(run, 137, since=0), held(run, 0), held(run, 1)) == ("stopped", True, False)
    decision = decide(Ended("held", 3), history(Ended("stopped", 1)))
    assert not decision.again and "submit the same command" in decision.reason
    write_json(run.new_attempt().outcome, outcome)
    assert not held(run, 0)


def test_the_first_tasks_word_is_its_jobs_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    leave_code(tmp_path, 2)
    assert take_code(tmp_path, "8") is None
    assert (take_code(tmp_path, "7"), take_code(tmp_path, "7")) == (2, None)


STARTS = """
import os, signal, subprocess, sys, time
from slurm.nodes.child_process import Stoppable
work = Stoppable()
if "early" in sys.argv:
    os.kill(os.getpid(), signal.SIGTERM)
script = "kill -USR1 $PPID; exec sleep 30" if "asks" in sys.argv else sys.argv[-1]
print(work.run(["sh", "-c", script]), flush=True)
"""


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["exit 3"], 3),
        (["kill -KILL $$"], 137),
        (["early", "exit 0"], 75),  # before the command began
        (["asks"], 75),  # while it has no handler yet, and is killed by the signal
        (["trap '' USR1; kill -USR1 $PPID; exit 2"], 2),
        (["trap 'exit 1' USR1; kill -USR1 $PPID; sleep 1"], 75),  # because another rank has left it
        (
            ["trap 'exit 1' USR1; kill -TERM $PPID; sleep 1"],
            1,
        ),  # as srun ends it when another rank has crashed
        (["kill -TERM $PPID; exec sleep 30"], 75),
    ],
)
def test_a_command_that_was_asked_to_stop_has_stopped(words: list[str], code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STARTS, *words], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout == f"{code}\n", done.stderr


def test_a_crash_while_submitting_evaluations_does_not_fail_a_finished_training(
    tmp_path: Path,
) -> None:
    """The job runs without Slurm: its srun does nothing, as if training had finished."""
    words = ["tiny", f"run.root={tmp_path}"]
    run = frozen_config.start(configs.load(words[0], words[1:]))
    run.new_attempt()
    (run.root / SUBMISSIONS).mkdir()  # provokes an IsADirectoryError, which no code expects
    (tmp_path / "srun").symlink_to("/bin/true")
    (tmp_path / "scontrol").symlink_to("/bin/true")
    script = Path(shutil.copy(ROOT / "slurm" / "sft_4b.sh", tmp_path / "slurm_script"))
    job = {"JOB_ID": "7", "JOB_NUM_NODES": "1", "NTASKS_PER_NODE": "1", "CPUS_PER_TASK": "1"}
    job["JOB_NODELIST"] = "n1"
    done = subprocess.run(
        [sys.executable, "-m", "slurm.job", str(script), "train", "--", *words],
        cwd=ROOT,
        env=environment()
        | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        | {f"SLURM_{name}": value for name, value in job.items()}
        | {"MASTER_ADDR": "localhost"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "IsADirectoryError" in done.stderr
    assert f"warmstart watch {run.root}" in done.stdout
    assert [line["ended"] for line in run.notes(REQUEUES)] == ["done"]
