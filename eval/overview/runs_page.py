"""Writes the overview of runs as one static page, with links to the runs' reports."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from common.files import file_errors, write_text
from eval.overview import overview
from eval.overview.overview import Known
from eval.report.html.one_file import policy
from eval.report.html.style import sheet
from eval.results import scores


def write(path: Path, found: Sequence[Known]) -> Path:
    """Writes the page and returns its path; it makes no network request and has no script. Links
    are relative to its folder. Raises UserError when it cannot be written.
    """
    style = sheet()
    titles, *lines = overview.lines(found)
    runs = [
        {"name": name, "cells": cells, "link": _link(path, known)}
        for known, (name, *cells) in zip(found, lines, strict=True)
    ]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = resources.files(__package__).joinpath("runs.html").read_text(encoding="utf-8")
    page = environment.from_string(template).render(
        policy=policy(style),
        style=Markup(style),
        lead=f"{len(found):,} runs on {overview.dated(time.time())}",
        titles=titles,
        runs=runs,
        notes=f"{scores.brackets(''.join(known.accuracy for known in found))}.",
    )
    with file_errors(path):
        write_text(path, page)
    return path


def _link(page: Path, known: Known) -> str | None:
    """Returns the address of the run's report, relative to the page; None if there is none."""
    there = [file for file in (known.run.page, known.run.report) if file.exists()]
    return quote(os.path.relpath(there[0], page.absolute().parent)) if there else None
