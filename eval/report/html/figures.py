"""Draws the page's charts from the figures, the rollouts' lengths and the steps of training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from common.plots import Panel
from common.text import percent
from eval.grading.metrics import TOTAL
from eval.report import checkpoints, rl_training, training_curves
from eval.report.checkpoints import Checkpoints
from eval.report.contents import Contents
from eval.report.html.charts import Axis, Line, chart, count, number, share
from eval.results.base_vs_sft import Comparison, missing
from trainer.run import rl_metrics
from trainer.run.rl_start import RlStart

BINS = 40
"""Maximum number of bins of a histogram of lengths."""
MARGIN = 0.05
"""Share of the values' range that is left free at both ends of an axis that does not begin at 0."""
GAP = 0.1
"""Minimum distance of two ticks, as a share of the axis of steps."""


@dataclass(frozen=True)
class Figure:
    """A chart with its title and the (name, kind) of each line."""

    title: str
    keys: list[tuple[str, str]]
    svg: Markup


def figures(found: Contents) -> list[Figure]:
    """Returns the charts of rollouts, training and RL."""
    compared = found.compared
    drawn = [_pass_at_k(compared)] if compared.known.n > 1 else []
    drawn += [_budget(compared), _lengths(compared)]
    if answers := found.answers:
        budget = _budget_of(compared)
        line = _binned("training answers", "training", answers, max(budget, *answers))
        drawn.append(_histogram("Length of the training answers", "rows", [line]))
    drawn += [_of_panel(c.title, c.axis, c.panel) for c in training_curves.curves(found.steps)]
    return [*drawn, *(figure for start in found.starts for figure in _rl(start))]


def of_checkpoints(found: Checkpoints) -> list[Figure]:
    """Returns the charts over the evaluated checkpoints."""
    return [_of_panel(p.title, p.title.lower(), p) for p in checkpoints.panels(found)]


def _rl(start: RlStart) -> list[Figure]:
    return [
        _of_panel(f"{panel.title}, {start.root.name}", panel.title.lower(), panel)
        for panel in rl_training.curves(rl_metrics.read(start))
    ]


def _of_panel(title: str, axis: str, panel: Panel) -> Figure:
    """Returns the page's chart of a report's panel; ``axis`` is the title of its y axis."""
    lines = [
        Line(of.name, of.kind, list(of.values.items()), of.dots, list(of.intervals.values()))
        for of in panel.lines
    ]
    values = [y for line in lines for _, y in line.points]
    values += [end for line in lines for interval in line.intervals for end in interval]
    steps = [x for line in lines for x, _ in line.points]
    low, high = min(values), max(values)
    if panel.zero and not panel.log:
        low = min(low, 0)
    elif not panel.log:
        margin = (high - low or 1) * MARGIN
        low, high = max(low - margin, 0), high + margin
    if panel.share:
        y = _shares(axis, high, low)
    else:
        write: Callable[[float], str] = f"{{:,.{panel.digits}f}}".format
        y = Axis(axis, low, high, number, write, panel.log).ending_at_ticks()
    x = Axis("step", min(steps), max(steps), number, count, marks=_marks(sorted({*steps})))
    return _figure(title, x, y, lines)


def _marks(steps: Sequence[float]) -> Sequence[float]:
    """Returns the steps themselves as ticks if they are far enough apart for their labels,
    otherwise none.
    """
    room = GAP * (steps[-1] - steps[0])
    return steps if all(b - a >= room for a, b in pairwise(steps)) else ()


def _pass_at_k(compared: Comparison) -> Figure:
    names, lines = _names(compared), []
    for e in compared.all:
        curve = enumerate(e.figures[TOTAL]["pass@k"], start=1)
        # A partial view may have no problem with k rollouts.
        points = [(k, value) for k, value in curve if value is not None]
        lines.append(Line(*names[e.folder], points, dots=True))
    n = compared.known.n
    powers = [2**i for i in range(n.bit_length())]
    x = Axis("k (rollouts)", 1, n, number, count, log=True, marks=powers)
    return _figure("pass@k, all problems", x, _shares("solved", _highest(lines)), lines)


def _budget(compared: Comparison) -> Figure:
    names = _names(compared)
    lines = [Line(*names[e.folder], e.figures[TOTAL]["by_budget"], dots=True) for e in compared.all]
    x = _tokens("budget (tokens)", _budget_of(compared))
    return _figure("Accuracy against the budget", x, _shares("pass@1", _highest(lines)), lines)


def _lengths(compared: Comparison) -> Figure:
    names, budget = _names(compared), _budget_of(compared)
    lines = [
        _binned(*names[e.folder], [r.tokens for r in e.rollouts.values()], budget)
        for e in compared.all
    ]
    return _histogram("Length of the rollouts", "rollouts", lines)


def _binned(name: str, kind: str, lengths: Sequence[int], end: int) -> Line:
    """Returns the number of lengths in each of at most ``BINS`` equal bins from 1 to ``end``
    tokens; the last bin may be narrower.
    """
    width = -(-end // BINS)
    counts = Counter(max(length - 1, 0) // width for length in lengths)
    points = [(i * width, counts[i]) for i in range(-(-end // width))]
    return Line(name, kind, [*points, (end, 0)], steps=True)


def _histogram(title: str, of: str, lines: list[Line]) -> Figure:
    x = _tokens("tokens", int(lines[0].points[-1][0]))
    y = Axis(of, 0, _highest(lines), number, count).ending_at_ticks()
    return _figure(title, x, y, lines)


def _budget_of(compared: Comparison) -> int:
    return compared.known.settings.sampling.max_tokens


def _tokens(title: str, end: int) -> Axis:
    """Returns an axis of tokens that ends at ``end``, with ticks at its quarters."""
    return Axis(title, 0, end, count, count, marks=[end * i // 4 for i in range(5)])


def _shares(title: str, high: float, low: float = 0.0) -> Axis:
    """Returns an axis of shares, which ends at a round value of at most 100 %."""
    return Axis(title, low, min(high, 1.0) or 0.1, share, percent).ending_at_ticks()


def _highest(lines: Sequence[Line]) -> float:
    return max(y for line in lines for _, y in line.points)


def _figure(title: str, x: Axis, y: Axis, lines: list[Line]) -> Figure:
    keys = [(line.name, line.kind) for line in lines]
    names = " and ".join(line.name for line in lines)
    return Figure(title, keys, chart(f"{title}: {y.title} by {x.title} of {names}", x, y, lines))


def _names(compared: Comparison) -> Mapping[Any, tuple[str, str]]:
    """Returns the name and kind of each evaluation's line; lines of the same kind have shades of
    one colour.
    """
    seen: Counter[str] = Counter()
    names = {}
    for e in compared.all:
        kind = e.label.kind
        shade = f" shade-{seen[kind]}" if seen[kind] else ""
        names[e.folder] = f"{e.name}{missing(TOTAL, e)}", f"{kind}{shade}"
        seen[kind] += 1
    return names
