"""The job scripts where a job is already: as its own script, and in a shell of its allocation."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.slurm.commands.conftest import SFT, call, submitted


def test_in_a_job_options_come_too_late(checkout: Path, tmp_path: Path) -> None:
    spooled = tmp_path / "job00007" / "slurm_script"
    spooled.parent.mkdir()
    shutil.copy(checkout / SFT, spooled)

    def in_job(*words: str) -> subprocess.CompletedProcess[str]:
        (checkout / "slurm" / "site.env").write_text(f"VENV={sys.prefix}\n")
        variables = os.environ | {"SLURM_JOB_ID": "7", "SLURM_SUBMIT_DIR": str(checkout)}
        return subprocess.run(
            [spooled, *words], cwd=checkout, env=variables, capture_output=True, text=True
        )

    done = in_job("--nodes=2", "train.lr=1")
    assert done.returncode == 2 and "sbatch --nodes=2 SCRIPT" in done.stderr
    done = in_job("train.lr=1e-5", "--dry-run")
    assert (
        done.returncode == 0
        and "slurm.nodes.rank runs/sft_4b train sft_4b train.lr=1e-5" in done.stdout
    )


def test_in_an_allocation_the_script_submits(checkout: Path) -> None:
    """In a shell by salloc or srun --pty, in a notebook; from another folder, through a link."""
    words = ("env", "SLURM_JOB_ID=7", "SLURM_SUBMIT_DIR=/", "SLURM_CPU_BIND=mask_cpu:0x1")
    link = checkout / "train"
    link.symlink_to(checkout / SFT)
    for script in (SFT, str(link), str(checkout / SFT)):
        done = call(checkout, "", *words, script, "train.lr=1e-5")
        assert done.returncode == 0, done.stderr
        assert submitted(checkout) == ["slurm/sft_4b.sh", "train.lr=1e-5"]
        # sbatch sees what it would see outside: it would pass the binding on to the job's steps.
        assert "SLURM_" not in (checkout / "variables").read_text()
