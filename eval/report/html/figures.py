"""Draws the page's charts from the figures, the rollouts' lengths and the training steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from eval.grading.metrics import TOTAL
from eval.report import rl_training, training_curves
from eval.report.html.charts import Axis, Line, chart, number, percent, thousands
from eval.report.training_curves import Curve
from eval.results.base_vs_sft import Comparison, missing
from eval.results.evaluation import Evaluation
from trainer.run import rl_metrics
from trainer.run.rl_start import RlStart

BINS = 40
"""Bins of the histogram of rollout lengths."""

RL_KINDS = {
    "training reward": "training",
    "held-out accuracy": "held-out",
    "entropy": "training",
    "mean": "training",
    "longest": "rl",
}
"""Name of a line of RL's training -> its kind."""


@dataclass(frozen=True)
class Figure:
    """A chart with its title and the (name, kind) of each line."""

    title: str
    keys: list[tuple[str, str]]
    svg: Markup


def figures(compared: Comparison, steps: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """Returns the page's charts; ``steps`` are the metrics of the training steps, and may be
    empty.
    """
    drawn = [_budget(compared), _histogram(compared)]
    if compared.known.n > 1:
        drawn.insert(0, _pass_at_k(compared))
    return [*drawn, *map(_training, training_curves.curves(steps))]


def rl_figures(start: RlStart) -> list[Figure]:
    """Returns the charts of one start's training."""
    drawn = []
    for title, curves in rl_training.curves(rl_metrics.read(start)).items():
        lines = [
            Line(name, RL_KINDS[name], list(values.items()), dots=dots)
            for name, values, _, dots in curves
        ]
        if lines:
            points = [point for line in lines for point in line.points]
            steps, top = [x for x, _ in points], max(y for _, y in points)
            y = Axis(title.lower(), 0, top * 1.1 or 0.1, number)
            x = Axis("step", min(steps), max(steps), number)
            drawn.append(_figure(f"{title}, {start.root.name}", x, y, lines))
    return drawn


def _pass_at_k(compared: Comparison) -> Figure:
    lines = []
    for e in compared.all:
        curve = enumerate(e.figures[TOTAL]["pass@k"], start=1)
        # A partial view may have no problem with k rollouts.
        lines.append(
            Line(*_names(e), [(k, share) for k, share in curve if share is not None], dots=True)
        )
    n = compared.known.n
    powers = [2**i for i in range(n.bit_length())]
    x = Axis("k (rollouts)", 1, n, number, log=True, marks=powers)
    return _figure("pass@k, all problems", x, _shares("solved", lines), lines)


def _budget(compared: Comparison) -> Figure:
    lines = [Line(*_names(e), e.figures[TOTAL]["by_budget"], dots=True) for e in compared.all]
    x = Axis("budget (tokens)", 0, max(line.points[-1][0] for line in lines), thousands)
    return _figure("Accuracy against the budget", x, _shares("pass@1", lines), lines)


def _histogram(compared: Comparison) -> Figure:
    width = -(-max(r.tokens for e in compared.all for r in e.rollouts.values()) // BINS) or 1
    lines = []
    for e in compared.all:
        counts = [0] * BINS
        for rollout in e.rollouts.values():
            counts[max(rollout.tokens - 1, 0) // width] += 1
        points = [(i * width, count) for i, count in enumerate(counts)]
        lines.append(Line(*_names(e), [*points, (BINS * width, 0)], steps=True))
    top = max(y for line in lines for _, y in line.points)
    x = Axis("tokens", 0, BINS * width, thousands)
    return _figure("Length of the rollouts", x, Axis("rollouts", 0, top * 1.05, number), lines)


def _training(curve: Curve) -> Figure:
    lines = [Line("training", "training", list(curve.training.items()))]
    if curve.held_out:
        lines.append(Line("held out", "held-out", list(curve.held_out.items()), dots=True))
    low, high = min(curve.values), max(curve.values)
    margin = 0.0 if curve.log else (high - low or 1) * 0.05
    y = Axis(curve.axis, low - margin, high + margin, number, curve.log)
    if curve.axis == training_curves.SHARE:
        y = Axis(curve.axis, max(y.low, 0.0), min(y.high, 1.0), percent)
    x = Axis("step", min(curve.training), max(curve.training), number)
    return _figure(curve.title, x, y, lines)


def _figure(title: str, x: Axis, y: Axis, lines: list[Line]) -> Figure:
    keys = [(line.name, line.kind) for line in lines]
    names = " and ".join(line.name for line in lines)
    return Figure(title, keys, chart(f"{title}: {y.title} by {x.title} of {names}", x, y, lines))


def _shares(title: str, lines: Sequence[Line]) -> Axis:
    top = max(y for line in lines for _, y in line.points)
    return Axis(title, 0, min(1.0, top * 1.1) or 0.1, percent)


def _names(evaluation: Evaluation) -> tuple[str, str]:
    """Returns the name and kind of an evaluation's line."""
    return f"{evaluation.label}{missing(TOTAL, evaluation)}", evaluation.label.kind
