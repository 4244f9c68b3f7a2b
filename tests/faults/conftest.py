"""The uninterrupted run, and a fresh folder for each trial."""

import shutil
from pathlib import Path

import pytest

from tests.faults.harness import TOTAL, Trial


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    """The run that nothing happens to."""
    trial = Trial(tmp_path_factory.mktemp("faults"))
    trial.build()
    trial.attempt(0)
    assert trial.run.checkpoints[-1] == TOTAL
    return trial


@pytest.fixture
def trial(reference: Trial, tmp_path: Path) -> Trial:
    """The dataset, and no run yet."""
    shutil.copytree(reference.folder / "data", tmp_path / "data")
    return Trial(tmp_path)
