"""The export of the short run's last checkpoint."""

from pathlib import Path

import pytest

from tests.conftest import STEPS, warmstart


@pytest.fixture(scope="session")
def export(short_run: Path) -> Path:
    """The export's folder."""
    warmstart("export", "tiny", folder=short_run.parent.parent)
    return short_run / "export" / f"step_{STEPS}"
