"""Writes report.html: one file with an evaluation's results and every rollout's text.

It opens from disk and makes no network request. Models' texts are untrusted: the page's
Content-Security-Policy allows only the one script with the given hash and forbids parsing any
string as HTML, and that script adds only text nodes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from omegaconf import DictConfig

from common.files import write_text
from common.text import percent
from eval.grading.metrics import TOTAL
from eval.report import contents, tables
from eval.report.html import rollouts, style
from eval.report.html.figures import figures, of_checkpoints
from eval.report.html.markdown import html
from eval.report.html.one_file import policy, source
from eval.results import base_vs_sft
from eval.results.base_vs_sft import Comparison, missing
from trainer.run.folder import Run

SCRIPTS = (
    "dom.js",
    "texts.js",
    "filters.js",
    "search.js",
    "grid.js",
    "graders.js",
    "toolbar.js",
    "panel.js",
    "link.js",
)
"""Parts of the page's one script, in order: the last one starts it."""
TABLES = ("pass-at-k", "budget", "rerun-error", "outcomes", "signal", "lengths")
"""The report's sections that the page puts into its section "Tables"."""
PLACED = ("checkpoints", "graders", "provenance")
"""The report's sections that have their own place in the template."""


def write(run: Run, config: DictConfig, partial: bool = False) -> Path:
    """Writes report.html into the run, about its latest evaluated step, the base model, averages
    and RL; returns the path.

    With ``partial``, evaluations that lack some of their rollouts count too, and the page marks
    them. Raises UserError when the run has no such evaluation, when the evaluations were graded
    under different versions of the rules, and when a complete evaluation lacks its metrics or some
    of its rollouts or grades.
    """
    found = contents.read(run, config, partial)
    compared = found.compared
    sections = [(s.id, s.title, html(s.text, s.title)) for s in found.sections()]
    texts = {id: text for id, _, text in sections}
    tabled = [section for section in sections if section[0] in TABLES]
    below = [section for section in sections if section[0] not in (*TABLES, *PLACED)]
    sheets = [rollouts.sheets(e) for e in compared.all]
    css, script = style.sheet(), "\n".join(map(source, SCRIPTS))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    page = environment.from_string(source("template.html")).render(
        name=run.name,
        lead=html(base_vs_sft.protocol(compared.known)),
        policy=policy(css, script),
        style=Markup(css),
        script=Markup(script),
        alarms=[html(alarm) for alarm in [*tables.alarms(compared), *_partial(compared)]],
        tiles=_tiles(compared),
        headlines=[_split(table) for table in found.headlines],
        notes=html("\n".join(f"- {line}" for line in found.reading)),
        figures=figures(found),
        over_steps=of_checkpoints(found.checkpoints) if found.checkpoints else [],
        texts=texts,
        below=below,
        tables=tabled,
        data=_json(rollouts.data(run, compared.all, sheets)),
        sheets=rollouts.packed(sheets),
    )
    write_text(run.page, page)
    return run.page


def _partial(compared: Comparison) -> list[str]:
    return [
        f"The evaluation of {e.name} is not finished{missing(TOTAL, e)}."
        for e in compared.all
        if e.is_partial
    ]


def _tiles(compared: Comparison) -> list[dict[str, str]]:
    """Returns the key figures over all problems, each with the base model's next to it."""
    n, partial = compared.known.n, missing(TOTAL, *compared.both)

    def tile(label: str, write: Any) -> dict[str, str]:
        before = ""
        if compared.base and compared.sft:
            before = f"base {write(compared.base.figures[TOTAL])}"
        return {
            "label": label + partial,
            "value": write(compared.known.figures[TOTAL]),
            "aside": before,
        }

    several = [tile(f"any@{n}, all problems", lambda f: percent(f[f"any@{n}"]))] if n > 1 else []
    return [
        tile("pass@1, all problems", lambda f: percent(f["pass@1"])),
        *several,
        tile("hit the budget", lambda f: percent(f["hit_budget"])),
        tile("median rollout", lambda f: f"{f['tokens']['p50']:,} tokens"),
    ]


def _split(table: Sequence[Sequence[str]]) -> list[list[Any]]:
    """Returns a table's lines, with each figure separate from its interval."""
    titles, *lines = table
    rows: list[list[Any]] = [list(titles)]
    for name, *cells in lines:
        row: list[Any] = [name]
        for cell in cells:
            figure, bracket, rest = cell.partition(" [")
            row.append((figure, bracket + rest))
        rows.append(row)
    return rows


def _json(value: Any) -> Markup:
    """Returns JSON whose content cannot end its script element: ASCII, with ``<``, ``>`` and ``&``
    escaped.
    """
    text = json.dumps(value, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
