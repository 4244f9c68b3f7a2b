"""The rehearsal of a training job, on a real cluster; its tries with a stand-in for srun, and its
tasks.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from common.exit_codes import DONE, PREFLIGHT, STOPPED
from slurm import rehearsal
from slurm.commands.command_lines import Allocation
from slurm.commands.stack import Stack
from slurm.nodes.child_process import Stoppable
from slurm.rehearsal import Rehearsal
from tests.conftest import ROOT
from tests.slurm.conftest import Site
from tests.slurm.test_jobs import decisions
from tests.slurm.test_queue import calls, program
from trainer.process.stop_signal import SIGNALS
from trainer.rehearsal.failure import STOPPED_LINE, Failure
from trainer.rehearsal.knobs import KNOBS
from trainer.run.folder import Run


@pytest.mark.slow
def test_a_knob_that_these_nodes_cannot_run_is_named(site: Site, tmp_path: Path) -> None:
    variables = f"CXX=/bin/false,TORCHINDUCTOR_CACHE_DIR={tmp_path}"
    words = ("run.name=knob", "train.compile=true", "train.prefetch=true")
    job = site.train(*words, options=(f"--export=ALL,{variables}",))
    ended, log, run = site.cluster.wait(job), site.log(job), site.run("knob")
    assert (ended["JobState"], ended["ExitCode"]) == ("FAILED", "3:0"), log
    (verdict,) = [line for line in log.splitlines() if "on these nodes" in line]
    assert verdict.startswith("warmstart: train.compile=true fails on these nodes (rank ")
    assert "InvalidCxxCompiler: No working C++ compiler found in" in verdict
    assert f"log: runs/knob/{run.rehearsal_log.name})" in verdict
    assert verdict.endswith("run the same command with train.compile=false")
    assert "train.prefetch=false" not in log, "the next knob was tried"
    said = run.rehearsal_log.read_text()
    assert "Traceback" in said and "step 2  loss " in said
    assert (run.attempts, run.config.exists(), decisions(run)) == ([], False, [("refused", False)])


def test_a_job_rehearses_before_it_trains(site: Site, trained: tuple[str, Run]) -> None:
    job, run = trained
    log = site.log(job)
    assert log.index("the rehearsal passed") < log.index("step 1/44  loss ")
    assert "0: step 2  loss " in run.rehearsal_log.read_text()


@pytest.mark.slow
def test_a_rehearsal_that_takes_too_long_does_not_stop_training(site: Site, tmp_path: Path) -> None:
    """Nor is it repeated when the run has a checkpoint."""
    planted = Site(site.cluster, tmp_path / "planted")
    shutil.copytree(site.folder, planted.folder, ignore=shutil.ignore_patterns("runs"))
    for name, constant, value in (
        ("knobs", "SECONDS = 180", "SECONDS = 8"),
        ("rehearse", "STACKS_AT = 0.6", "STACKS_AT = 0.3"),
    ):
        module = planted.folder / "trainer" / "rehearsal" / f"{name}.py"
        text = module.read_text()
        assert f"\n{constant}\n" in text
        module.write_text(text.replace(constant, value))
    words = ("run.name=late", "train.prefetch=true", "train.max_steps=2", "train.save_every=1")
    job = planted.train(*words)
    assert site.cluster.wait(job)["JobState"] == "COMPLETED", planted.log(job)
    assert "the rehearsal did not end within 8 s" in planted.log(job)
    said = planted.run("late").rehearsal_log.read_text()
    assert all(f"{rank}: Current thread 0x" in said for rank in (0, 1)), "no stacks"
    assert planted.run("late").checkpoints == [1, 2]
    again = planted.train(*words)
    assert site.cluster.wait(again)["JobState"] == "COMPLETED", planted.log(again)
    assert "rehearsing two steps" not in planted.log(again)


ERROR = Failure.of("3", "n2", "OutOfMemoryError: CUDA out of memory").line
FAILS = f"echo '{ERROR}'; echo '{Failure.of('0', 'n1', 'a peer is gone').line}'; exit 1"


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rehearsal]:
    """A rehearsal with every knob on, in a job whose srun is a stand-in in ``tmp_path``."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    stack = Stack(Allocation(2, 4, 8), ("python",))
    yield Rehearsal(stack, Run(tmp_path / "runs" / "x"), ("sft_4b", "train.lr=1e-5"), KNOBS)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def tried(folder: Path) -> list[list[str]]:
    """Which knobs each try switched off."""
    words = calls(folder, "srun")
    begins = [i for i, word in enumerate(words) if word == "sft_4b"]
    tries = [words[i:end] for i, end in zip(begins, [*begins[1:], len(words)], strict=True)]
    return [[w.removesuffix("=false") for w in words if w.endswith("=false")] for words in tries]


def test_each_knob_is_left_out_alone_and_then_all(
    held: Rehearsal, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    program(tmp_path, "srun", FAILS)
    assert held.hold(Stoppable(), {}) == PREFLIGHT
    assert tried(tmp_path) == [[], [], *([knob] for knob in KNOBS), [*KNOBS]]
    last = capfd.readouterr().out.splitlines()[-1]
    assert "(rank 3 on n2: OutOfMemoryError: CUDA out of memory; log: " in last
    assert last.endswith("; warmstart plan sft_4b train.lr=1e-5 shows what fits")


def test_tries_that_do_not_end_are_not_said_to_have_failed(
    held: Rehearsal,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rehearsal, "SECONDS", 0.5)
    script = f"if mkdir {tmp_path}/failed 2>/dev/null; then {FAILS}; fi; exec sleep 60"
    program(tmp_path, "srun", script)
    assert held.hold(Stoppable(), {}) == PREFLIGHT
    assert "; some tries did not end within 0.5 s" in capfd.readouterr().out.splitlines()[-1]


def test_a_fault_that_passes_names_no_knob(
    held: Rehearsal, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    program(tmp_path, "srun", f"if mkdir {tmp_path}/failed 2>/dev/null; then {FAILS}; fi")
    assert held.hold(Stoppable(), {}) == DONE
    assert tried(tmp_path) == [[], []]
    assert capfd.readouterr().out.splitlines()[-1].endswith("passed the second time")


@pytest.mark.parametrize(
    ("culprits", "count", "said"),
    [
        (KNOBS[2:3], 5, "train.fused_optimizer=true fails on these nodes"),
        (KNOBS[1:3], 7, " and train.prefetch=true fail on these nodes"),
    ],
)
def test_the_first_try_that_succeeds_names_the_knob(
    held: Rehearsal,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    culprits: tuple[str, ...],
    count: int,
    said: str,
) -> None:
    on = [f'case "$*" in *{knob}=false*) ;; *) {FAILS};; esac' for knob in culprits]
    program(tmp_path, "srun", "\n".join(on))
    assert held.hold(Stoppable(), {}) == PREFLIGHT
    last = capfd.readouterr().out.splitlines()[-1]
    without = tried(tmp_path)[-1]
    assert len(tried(tmp_path)) == count and {*culprits} <= {*without}
    assert said in last
    assert last.endswith("the same command with " + " ".join(f"{k}=false" for k in without))
    assert held.run.rehearsal_log.read_text().count(ERROR) == count - 1
    held.run.config.write_text("")
    assert held.hold(Stoppable(), {}) == PREFLIGHT
    assert capfd.readouterr().out.endswith("=false run.name=NAME\n"), "its settings are frozen"


def test_a_stop_is_no_failure(held: Rehearsal, tmp_path: Path) -> None:
    """The ranks that lose one that has stopped fail."""
    program(tmp_path, "srun", f"echo '{ERROR}'; echo '{STOPPED_LINE}'; exit 75")
    assert held.hold(Stoppable(), {}) == STOPPED
    assert len(tried(tmp_path)) == 1


def test_what_takes_too_long_is_ended_and_training_starts(
    held: Rehearsal,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(rehearsal, "SECONDS", 1)
    held = replace(held, knobs=KNOBS[:1])
    program(tmp_path, "srun", "exec sleep 30")
    assert held.hold(Stoppable(), {}) == DONE
    assert "did not end within 1 s" in capfd.readouterr().out
    program(tmp_path, "srun", f"echo '{ERROR}'; exec sleep 30")
    assert held.hold(Stoppable(), {}) == PREFLIGHT, "a rank that failed cannot leave the others"


@pytest.mark.parametrize(
    ("number", "to_child", "code", "said"),
    [
        (signal.SIGKILL, True, 137, Failure.of("5", "n3", "killed by SIGKILL").line),
        (signal.SIGUSR1, False, STOPPED, STOPPED_LINE),
        (signal.SIGTERM, False, STOPPED, ""),  # srun's, to the ranks beside a failed one
    ],
)
def test_a_task_says_how_its_rank_ended(
    number: int, to_child: bool, code: int, said: str, tmp_path: Path
) -> None:
    place = {"SLURM_PROCID": "5", "SLURMD_NODENAME": "n3", "PYTHONPATH": str(ROOT)}
    words = ("-m", "slurm.nodes.rank", str(tmp_path), "rehearse", "tiny")
    task = subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, env=os.environ | place, stdout=subprocess.PIPE
    )
    process = psutil.Process(task.pid)
    while not process.children():
        assert task.poll() is None
    (process.children()[0] if to_child else process).send_signal(number)
    out, _ = task.communicate(timeout=60)
    assert (task.returncode, out.decode().strip()) == (code, said)
