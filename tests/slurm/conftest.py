"""A Slurm cluster for the session, and a checkout as a user has one: with a site file, and a space
in its path.
"""

import hashlib
import json
import shutil
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from tests.conftest import ROOT, warmstart
from tests.slurm.cluster import Cluster, Unavailable, running
from trainer.run.folder import Run

DATA = ("data.arithmetic.problems=400", "data.spare_share=0", "train.batch_size=32")
"""Dataset of every job: 11 steps per epoch."""
NODES = ("--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=1", "--cpus-per-task=1", "--time=20")
TINY = ("recipe=tiny", *DATA)

SITE = """
VENV={venv}
# The jobs that a run submits stay pending unless a test says otherwise; training jobs name their
# partition.
export SBATCH_PARTITION=${{SBATCH_PARTITION:-closed}} SBATCH_GPUS_PER_NODE=1
EVAL_OPTIONS=(--nodes=2 --cpus-per-task=1)
SRUN_OPTIONS=(--mpi=none)
if [[ -n ${{SLURM_JOB_ID:-}} && -e no-sbatch-here ]]; then PATH=$PWD/no-sbatch-here:$PATH; fi
"""


@dataclass(frozen=True)
class Site:
    """The cluster and the checkout."""

    cluster: Cluster
    folder: Path

    def train(self, *words: str, options: tuple[str, ...] = ()) -> str:
        """``sbatch slurm/sft_4b.sh recipe=tiny`` over two nodes; returns the job's id."""
        script = ("slurm/sft_4b.sh", *TINY, *words)
        return self.cluster.sbatch(*NODES, "--partition=gpu", *options, *script, cwd=self.folder)

    def command(self, *words: str) -> tuple[str, ...]:
        """The command's line, as on the login node."""
        return (sys.executable, "-m", "warmstart", *words)

    def log(self, job: str) -> str:
        return "".join(path.read_text() for path in self.folder.glob(f"*-{job}.log"))

    def run(self, name: str) -> Run:
        return Run(self.folder / "runs" / name)

    def until_step(self, run: Run, step: int, attempt: int = 1) -> None:
        """Waits for the metrics of a step in an attempt."""
        metrics = run.root / "attempts" / str(attempt) / "metrics.jsonl"

        def trained() -> bool:
            text = metrics.read_text() if metrics.exists() else ""
            lines = text[: text.rfind("\n") + 1].splitlines()  # without one that is being written
            return bool(lines) and json.loads(lines[-1])["step"] >= step

        self.cluster.until(trained, 200, lambda: self.cluster.call("squeue", "--long"))

    def weights(self, run: Run) -> dict[str, str]:
        """Hashes of the last checkpoint's tensors, by file and name; a file's header has no fixed
        order.
        """
        shards = run.checkpoint(run.checkpoints[-1]).glob("*.safetensors")
        tensors = {
            f"{path.name}/{name}": tensor
            for path in shards
            for name, tensor in load_file(path).items()
        }
        return {
            name: hashlib.sha256(tensor.tobytes()).hexdigest() for name, tensor in tensors.items()
        }


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Four nodes."""
    try:
        with running() as cluster:
            yield cluster
    except Unavailable as e:
        warnings.warn(f"THE SLURM TESTS DO NOT RUN: {e}", stacklevel=1)
        pytest.skip(f"no Slurm: {e}")


@pytest.fixture(scope="session")
def site(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A checkout with its dataset."""
    folder = tmp_path_factory.mktemp("slurm") / "a checkout"
    skipped: Any = shutil.ignore_patterns("__pycache__", "site.env")
    for name in ("common", "data_prep", "trainer", "eval", "recipes", "slurm", "warmstart"):
        shutil.copytree(ROOT / name, folder / name, ignore=skipped)
    (folder / "slurm" / "site.env").write_text(SITE.format(venv=sys.prefix))
    warmstart("data", "tiny", *DATA, folder=folder)
    return Site(cluster, folder)


@pytest.fixture(scope="session")
def trained(site: Site) -> tuple[str, Run]:
    """(job, run) of an uninterrupted training over two nodes, after a rehearsal."""
    words = ("train.epochs=4", "train.save_every=22", "train.prefetch=true")
    job = site.train("run.name=whole", *words)
    assert site.cluster.wait(job)["JobState"] == "COMPLETED", site.log(job)
    return job, site.run("whole")
