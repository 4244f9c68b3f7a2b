"""Evaluations that a run submits: each once, again after a failure, and to the end on a real cluster."""

import shutil
from pathlib import Path

import pytest

import slurm.watch
from slurm import journal
from tests.slurm.conftest import Site
from trainer.rundir import Run

pytestmark = pytest.mark.slow

REFUSING = """#!/bin/sh
[ $(wc -l <"$0.calls") -ge {times} ] && exec {sbatch} "$@"
echo >>"$0.calls"
echo "sbatch: error: the controller is asleep" >&2
exit 1
"""


def submissions(run: Run) -> list[dict]:
    return journal.read(run.root / "submissions.jsonl")


@pytest.fixture
def unwatched(site: Site, trained: tuple[str, Run], monkeypatch: pytest.MonkeyPatch) -> Run:
    """A copy of the finished run of which nothing has been submitted, watched from the checkout's login node."""
    run = Run(trained[1].root.with_name("unwatched"))
    shutil.copytree(trained[1].root, run.root, ignore=shutil.ignore_patterns("submissions.jsonl"))
    monkeypatch.setattr(slurm.watch, "CHECKOUT", site.folder)
    monkeypatch.setattr("os.environ", dict(site.cluster.environment))
    return run


@pytest.fixture(autouse=True)
def removed(site: Site) -> None:
    shutil.rmtree(site.run("unwatched").root, ignore_errors=True)


def test_another_watcher_submits_nothing_but_other_settings(site: Site, trained: tuple[str, Run]) -> None:
    _, run = trained
    before = submissions(run)
    site.cluster.call(*site.command("watch", run.name), cwd=site.folder)
    assert submissions(run) == before
    said = site.cluster.call(*site.command("watch", run.name, "eval.limit=3"), cwd=site.folder)
    added = submissions(run)[len(before) :]
    assert [line["label"] for line in added] == [line["label"] for line in before]
    assert {line["settings"] for line in added} != {line["settings"] for line in before}
    assert f"job {added[0]['job']} evaluates base" in said
    assert "base eval.limit=3 " in site.cluster.call("scontrol", "show", "job", "-o", added[0]["job"])


def test_a_failed_submission_is_tried_again(
    site: Site, unwatched: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fake = tmp_path / "sbatch"
    fake.write_text(REFUSING.format(times=4, sbatch=shutil.which("sbatch")))
    fake.chmod(0o755)
    (tmp_path / "sbatch.calls").touch()
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    labels = ["base", *map(str, unwatched.checkpoints)]
    assert len(labels) == 3 and not slurm.watch.watch(unwatched, once=True)
    assert submissions(unwatched) == []
    assert slurm.watch.watch(unwatched, poll=0.1)
    assert sorted(line["label"] for line in submissions(unwatched)) == sorted(labels)
    assert "base could not be submitted: sbatch: error: the controller is asleep" in capfd.readouterr().out


@pytest.mark.slow
def test_training_evaluation_and_report_by_one_sbatch(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(site.cluster.environment, "SBATCH_PARTITION", "gpu")
    small = ("eval.rollouts=2", "eval.limit=4", "eval.engines=1", "eval.max_tokens=32")
    job = site.train("run.name=line", "train.max_steps=4", *small)
    assert site.cluster.wait(job)["JobState"] == "COMPLETED", site.log(job)
    run = site.run("line")
    assert [line["label"] for line in submissions(run)] == ["base", "4"]
    for line in submissions(run):
        assert site.cluster.wait(line["job"], 600)["JobState"] == "COMPLETED", site.log(line["job"])
    assert len(run.evaluations) == 2 and all((e / "manifest.json").exists() for e in run.evaluations)
    assert "pass@1" in run.report.read_text()
