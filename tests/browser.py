"""Headless Chromium for tests of pages: Debian's, driven by Playwright, which downloads nothing of
its own.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests import debian

PACKAGES = ("chromium", "fonts-dejavu-core")
COLOURS = """selector => {
  const node = document.querySelector(selector);
  let behind = node;
  while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)")
    behind = behind.parentElement;
  return [getComputedStyle(node).color, getComputedStyle(behind).backgroundColor];
}"""


@dataclass
class Opened:
    """A page that is open, and everything that it has asked for and complained of."""

    page: Any
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")  # Playwright's event loop runs in this thread until it is closed
def browser() -> Iterator[Browser]:
    """Installed where it is missing and the tests run as root; the tests are skipped where it
    cannot be.
    """
    if missing := debian.install(("chromium",), PACKAGES):
        pytest.skip(f"no Chromium: {missing}")
    path = shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(
    browser: Browser, file: Path, width: int = 1400, scheme: str = "light"
) -> Iterator[Opened]:
    """Opens a file from disk, as a double click does."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    seen = Opened(page)
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on("console", lambda message: seen.complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    page.goto(file.as_uri())
    try:
        yield seen
    finally:
        context.close()


def contrast(page: Any, selector: str) -> float:
    """Returns the contrast of the first matching element's text, a ratio of luminances (WCAG 2)."""

    def luminance(colour: str) -> float:
        parts = [int(c) / 255 for c in re.findall(r"\d+", colour)[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted(map(luminance, page.evaluate(COLOURS, selector)))
    return (high + 0.05) / (low + 0.05)
