"""The planted source, and the dataset that is made of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_prep.build import Workers, build
from data_prep.source.source import Source
from tests.data_prep.openr1 import clean
from tests.data_prep.planted import CLEAN, SETTINGS, planted, survivors, write


@pytest.fixture(scope="session")
def records() -> list[dict[str, Any]]:
    return [clean(i) for i in range(CLEAN)] + list(survivors()) + [r for _, r in planted()]


@pytest.fixture(scope="session")
def built(records: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    source = write(folder / "source", records, 3)
    build(folder / "data", replace(SETTINGS, source=Source(source)), Workers(processes=2))
    return folder / "data"
