"""Evaluations that a run submits: each once, again after a failure."""

import shutil
from pathlib import Path

import pytest

from slurm.queue import jobs, submit_evaluations
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import Site
from trainer.run.folder import Run

REFUSING = """#!/bin/sh
[ $(wc -l <"$0.calls") -ge {times} ] && exec {sbatch} "$@"
echo >>"$0.calls"
echo "sbatch: error: the controller is asleep" >&2
exit 1
"""


def submissions(run: Run) -> list[dict]:
    return run.notes("submissions.jsonl")


@pytest.fixture
def unwatched(site: Site, trained: tuple[str, Run], monkeypatch: pytest.MonkeyPatch) -> Run:
    """A copy of the finished run of which nothing has been submitted, watched from the checkout's
    login node.
    """
    run = Run(trained[1].root.with_name("unwatched"))
    shutil.copytree(trained[1].root, run.root, ignore=shutil.ignore_patterns("submissions.jsonl"))
    monkeypatch.setattr(submit_evaluations, "CHECKOUT", site.folder)
    monkeypatch.setattr("os.environ", dict(site.cluster.environment))
    return run


@pytest.fixture(autouse=True)
def removed(site: Site) -> None:
    shutil.rmtree(site.run("unwatched").root, ignore_errors=True)


def test_another_watcher_submits_nothing_but_other_settings(
    site: Site, trained: tuple[str, Run]
) -> None:
    _, run = trained
    before = submissions(run)
    site.cluster.call(*site.command("watch", run.name), cwd=site.folder)
    assert submissions(run) == before
    said = site.cluster.call(*site.command("watch", run.name, "eval.limit=3"), cwd=site.folder)
    added = submissions(run)[len(before) :]
    assert [line["label"] for line in added] == [line["label"] for line in before]
    assert {line["settings"] for line in added} != {line["settings"] for line in before}
    assert f"job {added[0]['job']} evaluates base" in said
    assert "base eval.limit=3 " in site.cluster.call(
        "scontrol", "show", "job", "-o", added[0]["job"]
    )


def test_a_failed_submission_is_tried_again(
    site: Site,
    unwatched: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    fake = tmp_path / "sbatch"
    fake.write_text(REFUSING.format(times=4, sbatch=shutil.which("sbatch")))
    fake.chmod(0o755)
    (tmp_path / "sbatch.calls").touch()
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    labels = ["base", *map(str, unwatched.checkpoints)]
    assert len(labels) == 3 and not submit_evaluations.watch(unwatched, once=True)
    assert submissions(unwatched) == []
    assert submit_evaluations.watch(unwatched, poll=0.1)
    assert sorted(line["label"] for line in submissions(unwatched)) == sorted(labels)
    assert (
        "base could not be submitted: sbatch: error: the controller is asleep"
        in capfd.readouterr().out
    )


def test_slurm_tells_which_jobs_may_still_run(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.environ", dict(cluster.environment))
    held, cancelled = (
        cluster.sbatch("--hold", "--output=/dev/null", "--wrap=true", cwd=tmp_path) for _ in "ab"
    )
    cluster.call("scancel", cancelled)
    unknown, dead = {"4000000": "UNKNOWN"}, {cancelled: "CANCELLED"}
    assert jobs.ended([held, cancelled, *unknown]) == dead | unknown
    assert jobs.ended([*unknown]) == unknown
    assert jobs.ended([held]) == {} and jobs.ended([cancelled]) == dead
    cluster.call("scancel", held)
    monkeypatch.setattr(jobs, "ASK_SECONDS", 3)
    monkeypatch.setitem(jobs.os.environ, "SLURM_CONF", "/nowhere")
    assert jobs.ended([held, cancelled]) is None


def test_the_only_job_of_an_array_has_the_arrays_number(cluster: Cluster, tmp_path: Path) -> None:
    """By which a chain finds its earlier jobs; and an index of an array can be waited for."""
    options = ("--output=%A-%a.log", "--wrap=echo $SLURM_JOB_ID $SLURM_ARRAY_TASK_ID")
    first = cluster.sbatch("--array=0-1", *options, cwd=tmp_path)
    job = cluster.sbatch("--array=1", f"--dependency=afterany:{first}_1", *options, cwd=tmp_path)
    log = tmp_path / f"{job}-1.log"
    cluster.until(lambda: log.exists() and log.read_text() != "", 60, lambda: str(cluster.job(job)))
    assert log.read_text().split() == [job, "1"]
