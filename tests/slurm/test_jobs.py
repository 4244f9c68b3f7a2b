"""Training jobs on a real cluster: over two nodes, stopped, killed and requeued."""

import shutil
import signal
from pathlib import Path

import psutil
import pytest

from common.files import read_json
from tests.slurm.conftest import DATA, TINY, Site
from trainer.run.folder import Run


def decisions(run: Run) -> list[tuple[str, bool]]:
    """Returns how the run's training ended each time, and whether its job was requeued."""
    return [
        (line["ended"], line["requeued"])
        for line in run.notes("requeues.jsonl")
        if line["what"] == "train"
    ]


def ranks(site: Site, job: str) -> list[psutil.Process]:
    """The processes of a job's ranks, by rank."""
    found = {}
    for process in site.cluster.processes():
        environment = process.environ()
        words = process.cmdline()
        is_rank = {"slurm.nodes.rank", "train"} <= {*words} and process.name() != "srun"
        if is_rank and environment.get("SLURM_JOB_ID") == job:
            found[int(environment["SLURM_PROCID"])] = process
    return [found[rank] for rank in sorted(found)]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["train.lrr=1"], 2, "did you mean train.lr?"),
        (["data.name=none"], 3, "data/none is not built [n1, n2]"),
    ],
)
def test_a_recipes_error_ends_the_job_with_its_message(
    site: Site, words: list[str], code: int, said: str
) -> None:
    job = site.train("run.name=wrong", *words)
    ended = site.cluster.wait(job)
    assert (ended["JobState"], ended["ExitCode"], ended["Restarts"]) == (
        "FAILED",
        f"{code}:0",
        "0",
    ), site.log(job)
    assert said in site.log(job) and "Traceback" not in site.log(job)
    assert site.run("wrong").checkpoints == []


def test_the_login_node_prepares_what_the_job_needs(site: Site) -> None:
    assert "tiny no longer needs the hub" in site.cluster.call(
        *site.command("prefetch", "tiny"), cwd=site.folder
    )
    found = site.cluster.call(*site.command("doctor", "tiny", *DATA), cwd=site.folder)
    assert "fatal" not in found and "sbatch would accept sft_4b.sh" in found
    assert "MASTER_PORT=" in site.cluster.call(
        "slurm/sft_4b.sh", "--dry-run", *TINY, cwd=site.folder
    )


def test_a_dataset_is_built_by_a_job_without_gpus(site: Site) -> None:
    words = ("data.name=by-a-job", "data.arithmetic.problems=100", "data.spare_share=0")
    script = ("slurm/data.sh", "tiny", "--parsable", "--partition=gpu", "--cpus-per-task=2", *words)
    job = site.cluster.call(*script, cwd=site.folder).split()[-1]
    ended = site.cluster.wait(job)
    assert ended["JobState"] == "COMPLETED", site.log(job)
    assert (ended["NumCPUs"], "gpu" in ended.get("TresPerNode", "")) == ("2", False)
    assert (site.folder / "data" / "by-a-job" / "manifest.json").exists()


def test_sbatch_trains_over_two_nodes(site: Site, trained: tuple[str, Run]) -> None:
    job, run = trained
    assert site.cluster.job(job)["NumNodes"] == "2" and "step 1/44  loss " in site.log(job)
    state = read_json(run.checkpoint(run.checkpoints[-1]) / "state.json")
    assert (state["step"], state["ranks"]) == (44, 2)
    assert decisions(run) == [("done", False)]


def test_each_checkpoint_and_the_base_are_submitted_once(
    site: Site, trained: tuple[str, Run]
) -> None:
    _, run = trained
    submitted = {line["label"]: line["job"] for line in run.notes("submissions.jsonl")}
    assert list(submitted) == ["base", *map(str, run.checkpoints)]
    for label, job in submitted.items():
        shown = site.cluster.call("scontrol", "show", "job", "-o", job)
        assert f"slurm/eval.sh {run.root} {label} " in shown and "JobState=PENDING" in shown


@pytest.mark.slow
def test_signals_and_requeues_from_outside_change_nothing(
    site: Site, trained: tuple[str, Run]
) -> None:
    run = site.run("disturbed")
    job = site.train("run.name=disturbed", "train.epochs=4", "train.save_every=22")
    for number, disturb in enumerate((("scancel", "--signal=USR1"), ("scontrol", "requeue")), 1):
        site.until_step(run, 12 * number, attempt=number)
        site.cluster.call(*disturb, job)
    ended = site.cluster.wait(job)
    assert (ended["JobState"], ended["Restarts"]) == ("COMPLETED", "2"), site.log(job)
    assert [a.status for a in run.attempts] == [
        "stopped",
        "stopped",
        "finished",
    ]
    assert decisions(run)[0] == ("stopped", True) and decisions(run)[-1] == ("done", False)
    assert site.weights(run) == site.weights(trained[1])


@pytest.mark.slow
def test_a_job_that_may_not_be_requeued_goes_on_in_a_successor(
    site: Site, trained: tuple[str, Run]
) -> None:
    run = site.run("a chain")
    words = ("run.name='a chain'", "train.epochs=4", "train.save_every=22")
    job = site.train(*words, options=("--no-requeue", "--time=25", "--job-name=a b"))
    site.until_step(run, 12)
    site.cluster.call("scancel", "--signal=USR1", job)
    ended = site.cluster.wait(job)
    assert (ended["JobState"], ended["ExitCode"]) == ("FAILED", "75:0"), site.log(job)
    (successor,) = [n["successor"] for n in run.notes("requeues.jsonl") if "successor" in n]
    last = site.cluster.wait(successor)
    assert last["JobState"] == "COMPLETED", site.log(successor)
    asked = ("NumNodes", "TimeLimit", "Partition", "Requeue", "TresPerNode", "JobName", "Task")
    assert [last[name] for name in asked] == [ended[name] for name in asked]
    assert decisions(run)[-2:] == [("stopped", True), ("done", False)]
    assert [attempt.status for attempt in run.attempts] == ["stopped", "finished"]
    assert site.weights(run) == site.weights(trained[1])


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["rank", "slurmstepd"])
def test_a_job_that_lost_a_process_loses_no_step(
    site: Site, trained: tuple[str, Run], victim: str
) -> None:
    run = site.run(f"killed {victim}")
    job = site.train(f"run.name='{run.name}'", "train.epochs=4", "train.save_every=22")
    site.until_step(run, 24)
    process = ranks(site, job)[1]
    if victim == "slurmstepd":
        process = process.parent()
        assert process is not None and "slurmstepd" in process.name()
    process.send_signal(signal.SIGKILL)
    ended = site.cluster.wait(job)
    # A rank outlives the daemon that started it, and may train to the end.
    crashes = int(ended["Restarts"])
    assert ended["JobState"] == "COMPLETED" and (
        crashes == 1 or (victim, crashes) == ("slurmstepd", 0)
    ), site.log(job)
    assert decisions(run) == [*[("crashed", True)] * crashes, ("done", False)]
    assert site.weights(run) == site.weights(trained[1])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_short_time_limit_needs_requeues_and_changes_nothing(site: Site) -> None:
    # Every row in each step, which takes a second or more: of three minutes start-up and margin
    # leave some 80 steps.
    words = (
        "train.batch_size=340",
        "train.epochs=200",
        "train.validate_every=200",
        "train.save_every=100",
    )
    whole = site.train("run.name=unlimited", *words, options=("--time=60",))
    ended = site.cluster.wait(whole, seconds=1500)
    assert (ended["JobState"], ended["Restarts"]) == ("COMPLETED", "0"), site.log(whole)
    assert site.run("unlimited").exports[:1] == [100], "was not exported during training"
    limited = site.train("run.name=limited", *words, options=("--time=3", "--signal=USR1@20"))
    ended = site.cluster.wait(limited, seconds=2000)
    assert ended["JobState"] == "COMPLETED" and int(ended["Restarts"]) >= 2, site.log(limited)
    run = site.run("limited")
    assert decisions(run) == [*[("stopped", True)] * int(ended["Restarts"]), ("done", False)]
    assert site.weights(run) == site.weights(site.run("unlimited"))


@pytest.mark.slow
def test_a_bug_in_a_step_is_a_crash_and_no_wrong_configuration(site: Site, tmp_path: Path) -> None:
    """Its traceback is in the log, and the job goes back into the queue."""
    planted = Site(site.cluster, tmp_path / "planted")
    shutil.copytree(site.folder, planted.folder, ignore=shutil.ignore_patterns("runs"))
    module = planted.folder / "trainer" / "loop" / "step.py"
    begins = "        waiting = time.monotonic()\n"
    bug = "        torch.zeros(2) + torch.zeros(3) if step == 2 else None\n"
    text = module.read_text()
    assert begins in text
    module.write_text(text.replace(begins, begins + bug, 1))
    job, run = planted.train("run.name=planted"), planted.run("planted")
    site.cluster.until(lambda: decisions(run) != [], 200, lambda: planted.log(job))
    site.cluster.call("scancel", job)
    assert decisions(run) == [("crashed", True)]
    assert "Traceback (most recent call last)" in planted.log(job)
    assert "RuntimeError: The size of tensor a (2) must match" in planted.log(job)
    assert len(run.attempts) == 1 and run.checkpoints == []


@pytest.mark.slow
def test_two_runs_share_nodes(site: Site) -> None:
    here = ("--nodelist=n[1-2]",)
    jobs = {
        name: site.train(f"run.name={name}", "train.max_steps=4", options=here)
        for name in ("left", "right")
    }
    for name, job in jobs.items():
        assert site.cluster.wait(job)["JobState"] == "COMPLETED", site.log(job)
        assert site.cluster.job(job)["NodeList"] == "n[1-2]"
        assert decisions(site.run(name)) == [("done", False)]
    assert site.weights(site.run("left")) == site.weights(site.run("right"))


@pytest.mark.slow
def test_an_array_trains_a_run_a_task(site: Site) -> None:
    job = site.train(
        "run.name=seed-%a", "train.seed=%a", "train.max_steps=2", options=("--array=1-2",)
    )
    for index in ("1", "2"):
        site.cluster.wait(f"{job}_{index}")
        assert decisions(site.run(f"seed-{index}")) == [("done", False)]


@pytest.mark.slow
def test_where_nodes_may_not_submit_the_login_node_does(site: Site) -> None:
    fake = site.folder / "no-sbatch-here" / "sbatch"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 'sbatch: error: only from the login node' >&2; exit 1\n")
    fake.chmod(0o755)
    job = site.train("run.name=quiet", "train.max_steps=2")
    assert site.cluster.wait(job)["JobState"] == "COMPLETED", site.log(job)
    Path(fake).unlink()
    fake.parent.rmdir()
    run = site.run("quiet")
    assert "only from the login node" in site.log(
        job
    ) and f"warmstart watch {Path('runs/quiet')}" in site.log(job)
    assert run.notes("submissions.jsonl") == []
    site.cluster.call(*site.command("watch", "quiet"), cwd=site.folder)
    assert [line["label"] for line in run.notes("submissions.jsonl")] == ["base", "2"]
