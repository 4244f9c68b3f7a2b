"""A QLoRA that is killed and stopped ends bit for bit as if nothing had happened."""

import shutil
from pathlib import Path

import pytest

from tests.faults.harness import Trial, differences

FAILED, STOPPED = 1, 75


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_before_and_after_a_checkpoint_and_stopped_by_a_signal(tmp_path: Path) -> None:
    reference, trial = (
        Trial(tmp_path / name, recipe="qlora_tiny") for name in ("reference", "trial")
    )
    reference.folder.mkdir()
    reference.build()
    shutil.copytree(reference.folder, trial.folder)
    reference.attempt(0)
    trial.attempt(FAILED, "kill_rank", rank=0, step=2, share=0.5)
    trial.attempt(FAILED, "kill_rank", rank=0, step=10, share=0.5)
    trial.attempt(STOPPED, "signal_in_a_step", step=14)
    trial.attempt(0)
    assert differences(reference.run, trial.run) == []
    assert trial.outcomes == [None, None, "stopped", "finished"]
    assert trial.starts == [0, 0, 8, 15]
