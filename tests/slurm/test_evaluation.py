"""Evaluation jobs on a real cluster: a Ray of two nodes with a vLLM engine on each, to the report;
cut off, too.
"""

import contextlib
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from common.files import read_json
from eval.generation import rollout_files
from tests.slurm.conftest import Site
from trainer.run.folder import Run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SMALL = ("eval.rollouts=2", "eval.limit=4", "eval.engines=2", "eval.max_tokens=32")
PROBLEMS, ROLLOUTS = 40, 8
LONG = (f"eval.rollouts={ROLLOUTS}", "eval.engines=2", "eval.max_tokens=128", "eval.concurrency=4")


@pytest.fixture(autouse=True)
def opened(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The jobs that runs submit start."""
    monkeypatch.setitem(site.cluster.environment, "SBATCH_PARTITION", "gpu")


def test_training_evaluations_and_report_by_one_sbatch(site: Site) -> None:
    job = site.train("run.name=line", "train.max_steps=4", *SMALL)
    assert site.cluster.wait(job)["JobState"] == "COMPLETED", site.log(job)
    run = site.run("line")
    submitted = {line["label"]: line["job"] for line in run.notes("submissions.jsonl")}
    assert list(submitted) == ["base", "4"]
    for number in submitted.values():
        ended = site.cluster.wait(number, 600)
        assert (ended["JobState"], ended["NumNodes"]) == ("COMPLETED", "2"), site.log(number)
        assert "Ray has 2 of 2 nodes" in site.log(number)
    assert len(run.evaluations) == 2
    for folder in run.evaluations:
        assert (folder / "manifest.json").exists()
        engines = [path.stem for path in sorted(folder.glob("engine-*.log"))]
        assert engines == ["engine-0", "engine-1"], "each holds a CPU, of which a node has one"
    report = run.report.read_text()
    assert "pass@1" in report and "step 4" in report.lower()
    assert_nothing_is_left(site, run)


def cancel(site: Site, job: str) -> None:
    """For good."""
    site.cluster.call("scancel", job)


def ask_to_stop(site: Site, job: str) -> None:
    """As before a time limit."""
    site.cluster.call("scancel", "--batch", "--signal=USR1", job)


def kill_a_node(site: Site, job: str) -> None:
    """The Ray of the second one."""
    raylets = [p for p in site.cluster.processes() if p.name() == "raylet"]
    wanted = {"SLURM_JOB_ID": job, "SLURM_PROCID": "1"}
    [raylet] = [p for p in raylets if wanted.items() <= p.environ().items()]
    raylet.send_signal(signal.SIGKILL)


@pytest.mark.parametrize("injure", [cancel, ask_to_stop, kill_a_node])
def test_an_evaluation_that_was_cut_off_has_every_rollout_once(
    site: Site, trained: tuple[str, Run], injure: Callable[[Site, str], None]
) -> None:
    run = trained[1]
    seed = f"eval.seed={1 + len(run.evaluations)}"  # another evaluation than those before
    words = ("slurm/eval.sh", str(run.root), "base", *LONG, seed)
    options = ("--nodes=2", "--gpus-per-node=1", "--cpus-per-task=1")
    job = site.cluster.sbatch(*options, *words, cwd=site.folder)
    before = set(run.evaluations)

    def half_way() -> bool:
        return any(
            lines(folder) >= PROBLEMS * ROLLOUTS // 4 for folder in set(run.evaluations) - before
        )

    site.cluster.until(half_way, 300, lambda: site.log(job))
    [folder] = set(run.evaluations) - before
    assert_token_is_secret(site, run, job)
    injure(site, job)
    if injure is cancel:
        assert site.cluster.wait(job, 120)["JobState"] == "CANCELLED", site.log(job)
        job = site.cluster.sbatch(*options, *words, cwd=site.folder)
    had = lines(folder)
    assert had < PROBLEMS * ROLLOUTS
    assert site.cluster.wait(job, 900)["JobState"] == "COMPLETED", site.log(job)
    assert (
        lines(folder) == PROBLEMS * ROLLOUTS == len(rollout_files.read(folder / "rollouts.jsonl"))
    )
    assert read_json(folder / "metrics.json")
    assert_nothing_is_left(site, run)


def lines(folder: Path) -> int:
    path = folder / "rollouts.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def assert_token_is_secret(site: Site, run: Run, job: str) -> None:
    """For this user's eyes only, and said nowhere."""
    [token] = run.root.glob(".ray-token-*")
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    secret = token.read_text()
    assert len(secret) == 64 and secret not in site.log(job)
    for process in site.cluster.processes():
        with contextlib.suppress(psutil.Error):  # has ended since
            assert secret not in str((process.cmdline(), process.environ()))


def assert_nothing_is_left(site: Site, run: Run) -> None:
    """Asserts that the jobs' Ray leaves no token, and no process once Slurm has cleaned up."""
    assert list(run.root.glob(".ray-token-*")) == []

    def gone() -> bool:
        return not [p for p in site.cluster.processes() if p.name() in ("raylet", "gcs_server")]

    site.cluster.until(gone, 60, lambda: str(psutil.pids()))
