"""A page that several modules open."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from common.records import Problem
from tests.browser import Opened, opened
from tests.eval.report.pages import made, ordinary
from tests.eval.report.reading import PROBLEMS, answer


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with rollouts of every kind."""

    def of(name: str) -> list[Problem]:
        return [Problem(f"{name}-{i}", f"What is $\\sqrt{{{i}}}$?", str(i), name) for i in range(6)]

    return made(tmp_path_factory.mktemp("plain"), {"a": of("a"), "b": of("b")}, 5, ordinary)


@pytest.fixture(scope="session")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page whose problems, ids and rollouts are odd or hostile."""
    return made(tmp_path_factory.mktemp("odd"), {"odd": PROBLEMS}, 4, answer)


@pytest.fixture
def reader(browser: Browser, odd: Path) -> Iterator[Opened]:
    """That page, open; it asked for nothing, complained of nothing and ran nothing smuggled."""
    with opened(browser, odd) as seen:
        yield seen
        assert {url.partition("#")[0] for url in seen.requests} == {odd.as_uri()}
        assert seen.complaints == []
        assert seen.page.evaluate("window.ran") is None
        assert seen.page.locator("main img, dialog img, dialog b").count() == 0
