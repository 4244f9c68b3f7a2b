"""Ends of an attempt that no training run is needed for: deadlines, hangs, what metrics a resumed
run shows.
"""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from common.files import write_json
from tests.conftest import ROOT
from trainer.loop.profiler import Profiler
from trainer.process.deadline import GRACE_SECONDS, Deadline, job_end
from trainer.process.watchdog import SET_UP_MINUTES, Watchdog
from trainer.run import step_metrics
from trainer.run.folder import Attempt, Run
from trainer.run.step_metrics import StepMetrics, TokenMeans

STEP = StepMetrics(
    1, 9, 1, 2.0, 1.0, 1e-3, 10, 5.0, 5.0, None, 2.0, 2.0, 0.1, 1.0, 1.0, 0.5, 16.0, False
)


def test_a_deadline_leaves_room_for_two_steps_and_two_saves() -> None:
    deadline = Deadline(time.time() + GRACE_SECONDS + 2 * 7 + 2 * 5 + 60)
    for seconds in (1000.0, 3.0, 7.0, 4.0):  # the first one compiled
        deadline.stepped(seconds)
    assert deadline.margin(5.0) == GRACE_SECONDS + 2 * 7 + 2 * 5
    assert not deadline.near(5.0)
    assert deadline.near(5.0 + 31)
    assert not deadline.near(5.0, running=8) and deadline.near(5.0, running=9)
    assert not Deadline(None).near(1e9)


def test_slurm_says_when_the_job_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert job_end({}) is None
    assert job_end({"SLURM_JOB_ID": "7", "SLURM_JOB_END_TIME": "1700000000"}) == 1.7e9
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(
        '#!/bin/sh\necho "JobId=$5 StartTime=2026-01-01T00:00:00 EndTime=$ENDS Partition=p"\n'
    )
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for ends, expected in (
        ("2026-01-01T00:30:00", time.mktime((2026, 1, 1, 0, 30, 0, 0, 0, -1))),
        ("Unknown", None),
    ):
        monkeypatch.setenv("ENDS", ends)
        assert job_end({"SLURM_JOB_ID": "7"}) == expected
    scontrol.write_text("#!/bin/sh\nexit 1\n")
    assert job_end({"SLURM_JOB_ID": "7"}) is None


HANG = """
import sys, threading, time
from pathlib import Path
from trainer.process.watchdog import Watchdog

def stuck():
    time.sleep(600)

watchdog = Watchdog(0.01, Path(sys.argv[1]))
time.sleep(1)  # set-up has its own allowance
watchdog.stepped()
threading.Thread(target=stuck).start()
stuck()
"""


def test_a_hung_rank_leaves_every_threads_stack_and_ends(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANG, str(tmp_path / "stacks")], timeout=60, check=False
    )
    assert done.returncode == 1
    text = (tmp_path / "stacks").read_text()
    assert text.count("in stuck") == 2 and "Timeout" in text


def test_a_watchdog_that_is_closed_leaves_nothing(tmp_path: Path) -> None:
    watchdog = Watchdog(45, tmp_path / "stacks")
    assert watchdog.allowance == 45 > SET_UP_MINUTES
    watchdog.close()
    assert list(tmp_path.iterdir()) == []


def attempt(run: Run, number: int, first: int, steps: list[StepMetrics], torn: str = "") -> None:
    attempt = Attempt(run.root / "attempts" / str(number))
    write_json(attempt.provenance, {"first_step": first})
    attempt.metrics.write_text("".join(step.json() for step in steps) + torn)


def test_a_run_shows_each_step_once_as_the_attempt_that_was_built_on_ran_it(tmp_path: Path) -> None:
    run = Run(tmp_path)
    attempt(run, 1, 0, [replace(STEP, step=s, loss=1.0) for s in (1, 2, 3, 4)], '{"step": 5')
    attempt(run, 2, 2, [])  # killed before its first step
    assert [(s["step"], s["loss"]) for s in step_metrics.read(run)] == [(1, 1.0), (2, 1.0)]
    attempt(run, 2, 2, [replace(STEP, step=s, loss=2.0) for s in (3, 4)])
    attempt(
        run, 3, 3, [replace(STEP, step=3, loss=2.0, val_loss=0.5), replace(STEP, step=4, loss=3.0)]
    )
    step_metrics.rebuild(run)
    shown = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert [(s["step"], s["loss"], s["val_loss"]) for s in shown] == [
        (1, 1.0, None),
        (2, 1.0, None),
        (3, 2.0, 0.5),
        (4, 3.0, None),
    ]


def test_metrics_are_strict_json() -> None:
    step = replace(
        STEP,
        loss=step_metrics.finite(float("nan")),
        grad_norm=step_metrics.finite(float("inf")),
        skipped=True,
    )
    assert json.loads(step.json(), parse_constant=pytest.fail)["loss"] is None
    assert "loss not finite" in step.line() and "(step skipped)" in step.line()
    with pytest.raises(ValueError, match="not JSON compliant"):
        replace(STEP, loss=float("nan")).json()


def test_entropy_and_accuracy_are_in_the_line_and_an_older_line_is_read_without_them(
    tmp_path: Path,
) -> None:
    step = replace(STEP, entropy=1.25, token_accuracy=0.625)
    whole = step.with_held_out(TokenMeans(1.5, 0.5, 0.75))
    assert "loss 2.0000  entropy 1.2500  accuracy 62.5%  grad norm" in whole.line()
    assert "val loss 1.5000  val entropy 0.5000  val accuracy 75.0%" in whole.line()
    lost = step.with_held_out(TokenMeans(float("nan"), float("inf"), 0.0))
    assert (lost.val_loss, lost.val_entropy, lost.val_token_accuracy) == (None, None, 0.0)
    assert "entropy" not in STEP.line() and "accuracy" not in STEP.line()
    old = json.loads(STEP.json())
    for name in ("entropy", "token_accuracy", "val_entropy", "val_token_accuracy"):
        del old[name]
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps(old) + "\n")
    assert next(step_metrics.follow(path)) == STEP


def test_a_stop_among_the_traced_steps_leaves_the_trace(tmp_path: Path) -> None:
    with Profiler("2:5", 9, tmp_path / "trace.json.gz") as profiler:
        for number in (1, 2, 3):
            with profiler.step(number):
                pass
    with gzip.open(tmp_path / "trace.json.gz", "rt") as f:
        assert json.load(f)["traceEvents"]


@pytest.mark.parametrize(("closed", "code"), [(True, 1), (False, -signal.SIGUSR1)])
def test_a_signal_in_the_last_moments_does_not_hide_a_crash(closed: bool, code: int) -> None:
    """While Python ends it restores a signal's default, which kills, unless it is ignored."""
    script = (
        "import os, signal, sys\n"
        "from trainer.process.stop_signal import StopRequest\n"
        "class Late:\n"
        "    def __del__(self, kill=os.kill, own=os.getpid(), number=signal.SIGUSR1):\n"
        "        kill(own, number)\n"
        "sys.late = Late()\n"
        "stop = StopRequest()\n"
        "stop.arm()\n"
        f"{'stop.close()' if closed else ''}\n"
        "raise ValueError('a bug')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, "ValueError: a bug" in done.stderr) == (code, True)
