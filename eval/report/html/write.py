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
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from omegaconf import DictConfig

from common.files import MANIFEST, sha256_file, write_text
from data_prep.output.folder import dataset_folder
from eval.choice import page as choice_page
from eval.grading.metrics import TOTAL
from eval.report import rl_readiness, rl_training, run_facts, tables
from eval.report.html import rollouts
from eval.report.html.figures import figures, rl_figures
from eval.report.html.markdown import html
from eval.results import average_vs_members, base_vs_sft, lengths, published, rl_vs_sft, siblings
from eval.results.average_vs_members import AverageComparison
from eval.results.base_vs_sft import Comparison, missing
from eval.results.evaluation import check_graders
from eval.results.rl_vs_sft import RlComparison
from trainer.run import step_metrics as training
from trainer.run.folder import Run
from trainer.run.rl_start import RlStart

STYLES = ("page.css", "rollouts.css")
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
SECTIONS = {
    "accuracy": "Accuracy",
    "charts": "Charts",
    "rollouts": "Rollouts",
    "graders": "Grader disagreements",
    "readiness": "RL readiness",
    "choice": "Which checkpoint",
    "rl": "RL",
    "tables": "Tables",
    "provenance": "Provenance",
}


def write(run: Run, config: DictConfig, partial: bool = False) -> Path:
    """Writes report.html into the run, about its latest evaluated step, the base model, averages
    and RL; returns the path.

    With ``partial``, evaluations that lack some of their rollouts count too, and the page marks
    them. Raises UserError when the run has no such evaluation, when the evaluations were graded
    under different versions of the rules, and when a complete one lacks its metrics or some of its
    rollouts or grades.
    """
    compared = base_vs_sft.newest(run, partial)
    reinforced = rl_vs_sft.of_run(run, partial)
    averaged = average_vs_members.of_run(run, partial)
    steps = training.read(run)
    tabled: list[Comparison | AverageComparison | RlComparison] = [compared]
    check_graders(e for c in [*tabled, *averaged, *reinforced] for e in c.all)
    starts = rl_training.trained(run)
    choice = choice_page.section(run, config)
    absent = {id for id, there in (("choice", choice), ("rl", starts)) if not there}
    sheets = [rollouts.sheets(e) for e in compared.all]
    manifest = dataset_folder(config) / MANIFEST
    dataset = sha256_file(manifest) if manifest.exists() else "no dataset"
    notes = [
        base_vs_sft.LEGEND,
        *([published.note(config.reference, compared.known)] if config.reference else []),
    ]
    if found := siblings.find(run, compared.sft):
        notes.insert(0, found.sentence())
    style, script = _joined(STYLES), _joined(SCRIPTS)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    page = environment.from_string(_source("template.html")).render(
        name=run.name,
        lead=html(base_vs_sft.protocol(compared.known)),
        policy=_policy(style, script),
        style=Markup(style),
        script=Markup(script),
        sections=[(id, title) for id, title in SECTIONS.items() if id not in absent],
        alarms=[html(alarm) for alarm in [*tables.alarms(compared), *_partial(compared)]],
        tiles=_tiles(compared),
        headlines=_headlines(compared, averaged, reinforced, config),
        notes=html("\n".join(f"- {note}" for note in notes)),
        figures=[
            *figures(compared, steps),
            *(figure for start in starts for figure in rl_figures(start)),
        ],
        raised=html(run_facts.alarms(steps)),
        choice=html(choice, "Which checkpoint") if choice else "",
        rl=[html(text, "RL") for text in _rl(starts)],
        tables=[html(text, name) for name, text in _tables(compared, config)],
        readiness=html(rl_readiness.section(compared), "RL readiness"),
        provenance=html(run_facts.provenance_table(run, dataset, compared.all), "Provenance"),
        data=_json(rollouts.data(run, compared.all, sheets)),
        sheets=rollouts.packed(sheets),
    )
    write_text(run.page, page)
    return run.page


def _partial(compared: Comparison) -> list[str]:
    return [
        f"The evaluation of {e.label} is not finished{missing(TOTAL, e)}."
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

    several = [tile(f"any@{n}, all problems", lambda f: f"{f[f'any@{n}']:.1%}")] if n > 1 else []
    return [
        tile("pass@1, all problems", lambda f: f"{f['pass@1']:.1%}"),
        *several,
        tile("hit the budget", lambda f: f"{f['hit_budget']:.1%}"),
        tile("median rollout", lambda f: f"{f['tokens']['p50']:,} tokens"),
    ]


def _tables(compared: Comparison, config: DictConfig) -> list[tuple[str, str]]:
    """Returns (name, Markdown) of the tables; pass@k, if n > 1, and the budget's have the values of
    charts.
    """
    several = [("pass@k", tables.pass_at_k(compared))] if compared.known.n > 1 else []
    return [
        *several,
        ("Accuracy against the budget", tables.by_budget(compared, config.reference)),
        ("Lengths", lengths.table(compared.named)),
        ("Outcomes", tables.outcomes(compared)),
        ("Averages", tables.averages(compared)),
        ("Signal for RL", tables.signal(compared)),
    ]


def _rl(starts: Sequence[RlStart]) -> list[str]:
    return [*map(rl_training.section, starts), rl_training.REGRESSION] if starts else []


def _headlines(
    compared: Comparison,
    averaged: Sequence[AverageComparison],
    reinforced: Sequence[RlComparison],
    config: DictConfig,
) -> list[list[list[Any]]]:
    """Returns the lines of the headline's tables: of SFT, of averages and of RL's models, a table
    for each settings.
    """
    tables = [base_vs_sft.headline(compared, config.reference)]
    for _, alike in groupby(averaged, lambda c: c.protocol):
        tables.append(average_vs_members.headline(list(alike)))
    for _, same in groupby(reinforced, lambda c: c.protocol):
        tables.append(rl_vs_sft.headline(list(same)))
    return [_split(table) for table in tables]


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


def _joined(names: Sequence[str]) -> str:
    return "\n".join(map(_source, names))


def _source(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _json(value: Any) -> Markup:
    """Returns JSON whose content cannot end its script element: ASCII, with ``<``, ``>`` and ``&``
    escaped.
    """
    text = json.dumps(value, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
