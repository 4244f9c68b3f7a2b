"""Writes report.html: one file with an evaluation's results and every rollout's text.

It opens from disk and makes no network request. Models' texts are untrusted: the page's
Content-Security-Policy allows only the one script with the given hash and forbids parsing any
string as HTML, and that script adds only text nodes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from omegaconf import DictConfig

from common.files import write_text
from common.records import ANSWERED, Grade, graders_differ
from common.text import percent
from eval.grading.metrics import TOTAL
from eval.report import contents, tables
from eval.report.html import style
from eval.report.html.figures import figures, of_checkpoints
from eval.report.html.markdown import html
from eval.report.html.texts import Sheet, pack
from eval.results import base_vs_sft
from eval.results.base_vs_sft import Comparison, missing
from eval.results.evaluation import Evaluation
from trainer.run.folder import Run

LISTED = 200
"""Most grader disagreements that are listed per evaluation."""
SHORT = 120
"""Most characters of an answer in that list."""
TABLES = ("pass-at-k", "budget", "rerun-error", "outcomes", "signal", "lengths")
"""The report's sections that the page has in one, as its tables."""
PLACED = ("checkpoints", "graders", "provenance")
"""The report's sections that have a place of their own in the template."""


def write(run: Run, config: DictConfig, partial: bool = False) -> Path:
    """Writes report.html into the run, about its latest evaluated step, the base model, averages
    and RL; returns the path.

    With ``partial``, evaluations that lack some of their rollouts count too, and the page marks
    them. Raises UserError when the run has no such evaluation, when the evaluations were graded
    under different versions of the rules, and when a complete one lacks its metrics or some of its
    rollouts or grades.
    """
    found = contents.read(run, config, partial)
    compared = found.compared
    sections = [(s.id, s.title, html(s.text, s.title)) for s in found.sections()]
    texts = {id: text for id, _, text in sections}
    tabled = [section for section in sections if section[0] in TABLES]
    below = [section for section in sections if section[0] not in (*TABLES, *PLACED)]
    evaluations = [_sheets(e) for e in compared.all]
    packed = iter(pack([sheet for sheets in evaluations for sheet in sheets]))
    css, script = style.sheet(), _source("page.js")
    shown = [_shown(run, e, sheets) for e, sheets in zip(compared.all, evaluations, strict=True)]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    page = environment.from_string(_source("template.html")).render(
        name=run.name,
        lead=html(base_vs_sft.protocol(compared.known)),
        policy=_policy(css, script),
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
        data=_json({"evaluations": shown}),
        sheets=[
            (f"sheet-{i}-{p}", Markup(next(packed)))
            for i, sheets in enumerate(evaluations)
            for p in range(len(sheets))
        ],
    )
    write_text(run.page, page)
    return run.page


def _sheets(evaluation: Evaluation) -> list[Sheet]:
    rollouts, grades = evaluation.rollouts, evaluation.grades
    sheets = []
    for problem in evaluation.problems:
        keys = [(problem.set, problem.id, k) for k in range(evaluation.n)]
        pairs = [
            (rollouts[key], grades[key]) if key in rollouts and key in grades else None
            for key in keys
        ]
        sheets.append(Sheet(problem, pairs))
    return sheets


def _shown(run: Run, evaluation: Evaluation, sheets: list[Sheet]) -> dict[str, Any]:
    """Returns the data that the page's script shows before a rollout is opened."""
    disagreeing = [
        (p, k, pair[1])
        for p, sheet in enumerate(sheets)
        for k, pair in enumerate(sheet.rollouts)
        if pair and graders_differ(pair[1].exact, pair[1].verified)
    ]
    return {
        "label": f"{evaluation.name}{missing(TOTAL, evaluation)}",
        "folder": str(evaluation.folder.relative_to(run.root)),
        "n": evaluation.n,
        "problems": [
            {
                "id": sheet.problem.id,
                "set": sheet.problem.set,
                "states": "".join(_state(pair[1]) if pair else "m" for pair in sheet.rollouts),
                "tokens": [pair and pair[0].tokens for pair in sheet.rollouts],
            }
            for sheet in sheets
        ],
        "unjudged": evaluation.figures[TOTAL]["verified_timeouts"],
        "disagreeing": len(disagreeing),
        "disagreements": [
            (
                p,
                k,
                _short(sheets[p].problem.answer),
                _short(grade.extracted),
                grade.exact,
                grade.verified,
            )
            for p, k, grade in disagreeing[:LISTED]
        ],
    }


def _state(grade: Grade) -> str:
    """Returns right, wrong, truncated or no answer as the letter that the page's script reads."""
    if grade.state in ANSWERED:
        return "r" if grade.exact else "w"
    return "t" if grade.state == "truncated" else "n"


def _short(answer: str | None) -> str | None:
    return answer if answer is None or len(answer) <= SHORT else f"{answer[:SHORT]}…"


def _partial(compared: Comparison) -> list[str]:
    return [
        f"The evaluation of {e.name} is not finished{missing(TOTAL, e)}."
        for e in compared.all
        if e.is_partial
    ]


def _tiles(compared: Comparison) -> list[dict[str, str]]:
    """Returns the key figures over all problems, each with the base model's beside it."""
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


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; base-uri "
        "'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _source(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _json(value: Any) -> Markup:
    """Returns JSON whose content cannot end its script element: ASCII, with ``<``, ``>`` and ``&``
    escaped.
    """
    text = json.dumps(value, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
