"""A page that several modules open."""

from pathlib import Path

import pytest

from common.records import Problem
from tests.eval.report.pages import made, ordinary


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with rollouts of every kind."""

    def of(name: str) -> list[Problem]:
        return [Problem(f"{name}-{i}", f"What is $\\sqrt{{{i}}}$?", str(i), name) for i in range(6)]

    return made(tmp_path_factory.mktemp("plain"), {"a": of("a"), "b": of("b")}, 5, ordinary)
