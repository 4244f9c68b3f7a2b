"""Runs the cases once for all tests: those of `make test-cuda`, and on demand those that take
longer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cuda import paper
from tests.cuda.cases import QLORA, QLORA_WHOLE, QUICK, WHOLE, WIDE, Case

Steps = dict[Case, dict[str, Any]]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CUDA device of paper."""
    if paper.COMPILER is None:
        pytest.skip("CUDA IS NOT CHECKED HERE: the device of paper needs a C compiler, install gcc")
    return paper.build(tmp_path_factory.mktemp("paper"))


def _steps(library: Path, folder: Path, cases: tuple[Case, ...]) -> Steps:
    return dict(zip(cases, paper.run(library, folder, cases), strict=True))


@pytest.fixture(scope="session")
def quick(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Steps:
    """Returns the measurements of every quick case."""
    return _steps(library, tmp_path_factory.mktemp("quick"), (*QUICK, QLORA))


@pytest.fixture(scope="session")
def slow(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Steps:
    """Returns the measurements of the combinations and the full models."""
    return _steps(library, tmp_path_factory.mktemp("slow"), (*WIDE, *WHOLE, QLORA_WHOLE))


@pytest.fixture
def step(request: pytest.FixtureRequest, case: Case) -> dict[str, Any]:
    """Returns the measurements of ``case``."""
    return request.getfixturevalue("quick" if case in (*QUICK, QLORA) else "slow")[case]
