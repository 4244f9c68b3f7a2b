"""Takes a picture of the top of a finished run's report, as a browser shows it.

    python -m tools.report_picture runs/tiny docs/pictures/report.png

Debian's Chromium, without a window, opens RUN/report.html from disk.
"""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

WIDTH, HEIGHT = 1280, 715
COLOURS = 128
"""Of the palette: the page is text and flat areas, and a palette takes a third of the bytes."""


def main() -> None:
    """Writes the picture. Exits with one line where Chromium or the report is missing."""
    parser = argparse.ArgumentParser(description="A picture of a run's report.")
    parser.add_argument("run", type=Path, help="the run's folder, with report.html")
    parser.add_argument("picture", type=Path, help="PNG to write")
    arguments = parser.parse_args()
    chromium, report = shutil.which("chromium"), arguments.run / "report.html"
    if not chromium:
        parser.error("no Chromium: apt-get install chromium fonts-dejavu-core")
    if not report.exists():
        parser.error(f"no {report}: warmstart report {arguments.run}")
    taken = Image.open(io.BytesIO(photograph(report, chromium))).convert("RGB")
    arguments.picture.parent.mkdir(parents=True, exist_ok=True)
    taken.quantize(COLOURS, dither=Image.Dither.NONE).save(arguments.picture, optimize=True)


def photograph(page_file: Path, chromium: str) -> bytes:
    """Returns the page's first screen as PNG: WIDTH x HEIGHT pixels, light colours."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(
            viewport={"width": WIDTH, "height": HEIGHT},
            color_scheme="light",
            reduced_motion="reduce",
        )
        page.goto(page_file.resolve().as_uri())
        taken = page.screenshot()
        browser.close()
    return taken


if __name__ == "__main__":
    main()
