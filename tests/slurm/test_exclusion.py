"""Nodes that are left out after a requeue: the rule with stubs of scontrol and sinfo, and a real
job one of whose nodes cannot start Python.
"""

import json
import sys
from pathlib import Path

import pytest

from slurm.queue import exclusion
from slurm.queue.requeue import Ended, decide
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import NODES, TINY, Site
from trainer.run.folder import INCIDENTS, Run

SCONTROL = """#!/bin/sh
case "$*" in
"show job"*) echo "JobId=7 ReqNodeList=(null) ExcNodeList=$(cat '{folder}/excluded') NumNodes=4" ;;
"show hostnames"*) echo "$3" | tr ',' '\\n' ;;
update*) echo "$*" >>'{folder}/updates'; echo "${{3#ExcNodeList=}}" >'{folder}/excluded' ;;
esac
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run of job 7 on four nodes, whose user leaves out n9."""
    (tmp_path / "scontrol").write_text(SCONTROL.format(folder=tmp_path))
    (tmp_path / "scontrol").chmod(0o755)
    (tmp_path / "excluded").write_text("n9\n")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "4")
    monkeypatch.setenv("SLURM_JOB_PARTITION", "gpu")
    sinfo(tmp_path, "down", "idle*", "drained")
    return Run(tmp_path / "run")


def sinfo(folder: Path, *states: str) -> None:
    """Makes sinfo show nine nodes that are up, then n10, n11 and so on in these states."""
    shown = [*["mixed"] * 9, *states]
    lines = "".join(f"n{number} {state}\n" for number, state in enumerate(shown, 1))
    (folder / "sinfo").write_text(f"#!/bin/sh\nprintf '{lines}'\n")
    (folder / "sinfo").chmod(0o755)


def incident(run: Run, start: int, *nodes: str, job: str = "7") -> None:
    for node in nodes:
        run.note(
            INCIDENTS, {"job": job, "start": start, "node": node, "what": "GPUs", "cause": "none"}
        )


def excluded(run: Run) -> str:
    return (run.root.parent / "excluded").read_text().strip()


def after(run: Run, *starts: tuple[str, int]) -> str:
    """What job 7 leaves out after these starts."""
    exclusion.exclude("7", exclusion.names(run, "7", starts))
    return excluded(run)


def test_a_broken_node_is_left_out_for_some_starts_beside_the_users_own(run: Run) -> None:
    incident(run, 1, "n2", job="6")  # whose successor job 7 is
    incident(run, 1, "n5", job="5")
    assert exclusion.broken(run, "6", 1) == {"n2": "GPUs: none"}
    starts = [("6", 1)]
    assert after(run, *starts) == "n2,n9"
    incident(run, 1, "n3")
    starts.append(("7", 1))
    assert after(run, *starts) == "n2,n3,n9"
    starts += [("7", number) for number in range(2, exclusion.STARTS)]
    assert after(run, *starts) == "n2,n3,n9"
    starts.append(("7", exclusion.STARTS))
    assert after(run, *starts) == "n3,n9"
    starts.append(("7", exclusion.STARTS + 1))
    assert after(run, *starts) == "n9"
    updates = (run.root.parent / "updates").read_text().splitlines()
    assert after(run, *starts) == "n9"
    assert (run.root.parent / "updates").read_text().splitlines() == updates


def test_a_job_does_not_run_out_of_nodes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine are up, and its user leaves out one of them."""
    incident(run, 1, "n2")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "7")
    assert after(run, ("7", 1)) == "n2,n9"
    (run.root.parent / "excluded").write_text("n9\n")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "8")
    assert after(run, ("7", 1)) == "n9"


@pytest.mark.parametrize("state", ["idle", "allocated", "completing", "reserved", "planned"])
def test_a_node_that_takes_jobs_is_counted(
    state: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job needs eight, and without it seven would remain."""
    sinfo(run.root.parent, state)
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "8")
    incident(run, 1, "n2")
    assert after(run, ("7", 1)) == "n2,n9"


@pytest.mark.parametrize(
    "state", ["down", "drained", "draining", "fail", "error", "unknown", "inval", "maint", "idle*"]
)
def test_a_node_that_takes_no_job_is_not_counted(
    state: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job needs eight, which would remain with it."""
    sinfo(run.root.parent, state)
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "8")
    incident(run, 1, "n2")
    assert after(run, ("7", 1)) == "n9"


def test_nodes_that_a_real_cluster_has_down_or_drained_are_not_usable(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    monkeypatch.setenv("SLURM_JOB_PARTITION", "gpu")
    monkeypatch.delenv("SLURM_JOB_RESERVATION", raising=False)
    change = ("scontrol", "update", "Reason=test")
    try:
        cluster.call(*change, "NodeName=n3", "State=DRAIN")
        cluster.call(*change, "NodeName=n4", "State=DOWN")
        assert exclusion._usable() == {"n1", "n2"}
    finally:
        cluster.call(*change, "NodeName=n[3-4]", "State=RESUME")
        cluster.until(lambda: len(exclusion._usable()) == 4, 60)


def test_what_most_nodes_have_is_no_nodes_fault(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    incident(run, 1, "n1", "n2")
    assert list(exclusion.broken(run, "7", 1)) == ["n1", "n2"]
    incident(run, 1, "n3")
    assert exclusion.broken(run, "7", 1) == {} and after(run, ("7", 1)) == "n9"
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "1")
    incident(run, 2, "n4")
    assert list(exclusion.broken(run, "7", 2)) == ["n4"]


def test_broken_nodes_count_as_crashes() -> None:
    before = [{"ended": "broken", "progress": 0}]
    assert decide(Ended("broken", 0), before).again
    assert decide(Ended("broken", 0), before).pause == 120
    crashes = [*before * 2, {"ended": "crashed", "progress": 0}]
    last = decide(Ended("broken", 0), crashes)
    assert not last.again and last.reason == "a node was broken 4 times in a row"
    assert not decide(Ended("refused", 0), []).again


ENTER = """#!/bin/sh
# A node on which the container does not start.
[ "$SLURMD_NODENAME" != n2 ] || exit 1
PATH={prefix}/bin:$PATH exec "$@"
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_job_goes_on_without_the_node_that_is_broken(site: Site) -> None:
    """Preflight waits for the node for longer than srun does for tasks that end together, names it,
    and the job comes back on others.
    """
    enter = site.folder / "enter"
    enter.write_text(ENTER.format(prefix=sys.prefix))
    enter.chmod(0o755)
    settings = site.folder / "slurm" / "site.env"
    usual = settings.read_text()
    settings.write_text(f"{usual}CONTAINER=('{enter}')\n")
    try:
        words = ("slurm/sft_4b.sh", *TINY, "run.name=left-out", "train.max_steps=2")
        options = ("--partition=gpu", "--nodelist=n1", "--exclude=n4")
        job = site.cluster.sbatch(
            *NODES, *options, *words, "train.hang_minutes=1.2", cwd=site.folder
        )

        def pending() -> bool:
            return site.cluster.job(job)["Restarts"] == "1"

        site.cluster.until(pending, 200, lambda: site.log(job))
        shown = site.cluster.job(job)
        assert shown["ExcNodeList"] in ("n[2,4]", "n2,n4"), site.log(job)
        site.cluster.call("scontrol", "update", f"JobId={job}", "StartTime=now")
        ended = site.cluster.wait(job)
        assert (ended["JobState"], ended["NodeList"]) == ("COMPLETED", "n[1,3]"), site.log(job)
    finally:
        settings.write_text(usual)
    run = site.run("left-out")
    assert [line["node"] for line in run.notes(INCIDENTS)] == ["n2"], json.dumps(site.log(job))
    assert "no message from 1 of 1 ranks within 72 s [n2]" in site.log(job)
    assert "node n2 is broken: peers" in site.log(job)
