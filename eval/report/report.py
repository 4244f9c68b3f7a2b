"""Writes the run's report: base, SFT, averages and RL, the rollouts' lengths and outcomes,
training, cost and provenance.

It is written only from files, so it can be written again at any time, on any machine.
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from common.files import write_text
from common.plots import Histogram, histogram
from common.text import markdown_table
from eval.report import checkpoints, contents, rl_training, tables, training_curves
from eval.report.contents import Contents, Picture
from eval.results import base_vs_sft
from trainer.run import rl_metrics
from trainer.run.folder import Run


def write(run: Run, config: DictConfig, partial: bool = False) -> Path:
    """Writes report.md, tokens.png and, if they have data, checkpoints.png and loss.png into the
    run, and reward.png into each start of RL; returns the report's path.

    With ``partial``, evaluations that lack some of their rollouts count too, and each of their
    lines states it. Raises UserError when the run has no such evaluation, and when the
    evaluations were graded under different versions of the rules.
    """
    found = contents.read(run, config, partial)
    _draw(found)
    reading = [*tables.alarms(found.compared), *found.reading]
    parts = [f"# {run.name}", *map(markdown_table, found.headlines)]
    parts.append("\n".join(f"- {line}" for line in reading))
    for section in found.sections():
        parts.append(f"## {section.title}")
        for part in section.parts:
            parts.append(_image(run, part) if isinstance(part, Picture) else part)
        parts += section.listed
    write_text(run.report, "\n\n".join(parts) + "\n")
    return run.report


def headline(run: Run, config: DictConfig) -> str:
    """Returns the report's first table, for the latest evaluated step."""
    return markdown_table(base_vs_sft.headline(base_vs_sft.newest(run), config.reference))


def _image(run: Run, picture: Picture) -> str:
    return f"![{picture.alt}]({picture.path.relative_to(run.root).as_posix()})"


def _draw(found: Contents) -> None:
    run, drawn = found.run, {}
    budget = found.compared.known.settings.sampling.max_tokens
    if answers := found.answers:
        drawn["training answers"] = Histogram(answers, "training", max(budget, *answers))
    for e in found.compared.all:
        tokens = [r.tokens for r in e.rollouts.values()]
        drawn[f"rollouts, {e.name}"] = Histogram(tokens, e.label.kind, budget)
    histogram(run.lengths_picture, drawn, "tokens")
    if found.checkpoints:
        checkpoints.picture(run.checkpoints_picture, found.checkpoints)
    if found.steps:
        training_curves.picture(run.loss_picture, found.steps)
    for start in found.starts:
        rl_training.picture(start.picture, rl_metrics.read(start))
