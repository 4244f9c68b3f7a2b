"""In a shell or a notebook of an allocation all is as on one machine; the tasks of a Ray cluster do
not end each other.
"""

from pathlib import Path

import pytest

from common.files import read_json
from slurm.commands.command_lines import TOGETHER, Allocation
from tests.slurm.conftest import TINY, Site

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def test_train_in_a_shell_of_an_allocation_starts_its_own_ranks(site: Site) -> None:
    """One task, as srun --pty has it; the evaluation that follows in `run` hears Ctrl-C, for no
    rank ran in its process.
    """
    words = [TINY[1], "run.name=shell", "train.max_steps=2", "train.ranks=2"]
    step = ("srun", "--ntasks=1", "--cpus-per-task=2")
    said = site.cluster.call(*step, *site.command("train", "tiny", *words), cwd=site.folder)
    assert "step 2/2" in said
    manifest = read_json(site.run("shell").checkpoint(2) / "manifest.json")
    assert sum(name.startswith("rank-") for name in manifest["files"]) == 2, manifest
    several = ("srun", "--ntasks=2", "--cpus-per-task=1")
    said = site.cluster.call(
        *several, *site.command("run", "tiny", *words), cwd=site.folder, check=False
    )
    assert said.count("warmstart run works in one task, but this step has several") == 2, said


def test_a_task_that_leaves_does_not_end_the_others(site: Site, tmp_path: Path) -> None:
    """An evaluation's node may leave long before its end; ranks of a training end together."""
    script = tmp_path / "job.sh"
    work = f"[ $SLURM_PROCID = 1 ] || {{ sleep {TOGETHER + 10}; echo goes on; }}"
    for wait in (0, 2):
        words = Allocation(2, 1, 1).srun("--kill-on-bad-exit=0", "bash", "-c", work, wait=wait)
        line = " ".join(f"'{word}'" for word in words)
        script.write_text(f"#!/bin/bash\n#SBATCH --output={tmp_path}/{wait}.log\n{line}\n")
        options = ("--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1", "--partition=gpu")
        site.cluster.wait(site.cluster.sbatch(*options, str(script), cwd=tmp_path))
        assert ("goes on" in (tmp_path / f"{wait}.log").read_text()) is (wait == 0)
