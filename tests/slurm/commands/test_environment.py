"""What a job inherits where it was submitted: on a cluster that binds tasks to cores, as real ones
do.
"""

import sys
from pathlib import Path

import pytest

from slurm.commands.environment import prepare
from tests.conftest import ROOT
from tests.slurm.cluster import Unavailable, running

JOB = """#!/bin/bash
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=2
#SBATCH --cpus-per-task=1
#SBATCH --output={folder}/%j.log
look() {{
    srun --ntasks-per-node=2 --cpus-per-task=1 --gpus-per-task=1 bash -c \\
        'echo $(awk "/^Cpus_allowed_list/ {{print \\$2}}" /proc/self/status) $CUDA_VISIBLE_DEVICES'
}}
echo inherited
look
echo prepared
DOCTOR_VENV='{venv}'
source '{root}/slurm/lib.sh'
look
echo "${{MASTER_ADDR-}}${{SLURM_STEP_ID-}}|"
"""


@pytest.mark.timeout(120)
def test_the_cores_of_a_step_in_which_sbatch_was_called_are_not_the_jobs(tmp_path: Path) -> None:
    """And each task has one GPU, the first of those that it sees."""
    script = tmp_path / "job.sh"
    script.write_text(JOB.format(folder=tmp_path, root=ROOT, venv=sys.prefix))
    try:
        with running("task/affinity") as cluster:
            step = ("env", "MASTER_ADDR=localhost", "srun", "--ntasks=1", "--cpus-per-task=1")
            said = cluster.call(*step, "sbatch", "--gpus-per-node=2", "--parsable", str(script))
            job = said.split()[-1]
            assert cluster.wait(job, 60)["JobState"] == "COMPLETED"
    except Unavailable as e:
        pytest.skip(f"no Slurm: {e}")
    text = (tmp_path / f"{job}.log").read_text()
    assert text.endswith("\n|\n"), text
    text = text.removesuffix("|\n")
    inherited, prepared = (
        [line.split() for line in part.splitlines()]
        for part in text.removeprefix("inherited\n").split("prepared\n")
    )
    assert len({cores for cores, _ in inherited}) == 1, text
    assert {cores for cores, _ in prepared} != {inherited[0][0]}, text
    assert sorted(gpu for _, gpu in prepared) == ["0", "1"], text


def test_caches_are_beside_the_hubs_unless_they_are_set() -> None:
    variables = {
        "HF_HOME": "/scratch/me/huggingface",
        "TRITON_CACHE_DIR": "/mine",
        "SLURM_JOB_ID": "7",
    }
    prepare(variables, 8)
    assert variables["VLLM_CACHE_ROOT"] == "/scratch/me/vllm"
    assert variables["TORCHINDUCTOR_CACHE_DIR"] == "/scratch/me/inductor"
    assert (variables["TRITON_CACHE_DIR"], variables["SLURM_JOB_ID"]) == ("/mine", "7")
    assert variables["OMP_NUM_THREADS"] == "8"
    without: dict[str, str] = {}
    prepare(without, 1)
    assert "VLLM_CACHE_ROOT" not in without


def test_the_memory_of_another_allocation_is_not_the_jobs() -> None:
    """srun takes one of the three variables at most."""
    both = {"SLURM_MEM_PER_CPU": "1000", "SLURM_MEM_PER_NODE": "490000"}
    prepare(both, 1)
    assert not {name for name in both if "MEM" in name}
    one = {"SLURM_MEM_PER_NODE": "490000"}
    prepare(one, 1)
    assert one["SLURM_MEM_PER_NODE"] == "490000"
