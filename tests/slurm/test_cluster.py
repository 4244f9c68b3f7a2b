"""The test cluster leaves nothing behind, however its session ends."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.slurm import cluster as clusters
from tests.slurm.cluster import Cluster

SESSION = """
import time
from tests.slurm.cluster import running
with running() as cluster:
    (cluster.folder / "job.sh").write_text("#!/bin/sh\\nsrun sleep 600\\n")
    job = cluster.sbatch("--nodes=2", "job.sh", cwd=cluster.folder)
    cluster.until(lambda: sum("sleep" in p.name() for p in cluster.processes()) == 2, 30)
    print(cluster.folder, flush=True)
    time.sleep(600)
"""


@pytest.mark.usefixtures("cluster")
def test_a_killed_sessions_cluster_is_swept() -> None:
    session = subprocess.Popen(
        [sys.executable, "-c", SESSION], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert session.stdout is not None
    other = Cluster(Path(session.stdout.readline().strip()))
    try:
        clusters.sweep()
        assert [p for p in other.processes() if p.name() == "sleep"], (
            "a living session's cluster was ended"
        )
    finally:
        session.kill()
        session.wait()
    assert [p for p in other.processes() if p.name() == "slurmstepd"], "step daemons outlive slurmd"
    clusters.sweep()
    end = time.monotonic() + 10
    while other.processes() and time.monotonic() < end:
        time.sleep(0.1)
    assert other.processes() == [] and not other.folder.exists()
