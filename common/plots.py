"""Plots for reports as PNG files, and the colours of PNG files and pages."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

COLOURS = {
    "base": "#c05f0a",
    "sft": "#1f5fc4",
    "average": "#6d6a00",
    "rl": "#17724f",
    "training": "#6290d6",
    "held-out": "#8a1f8f",
}
"""Subject of a line or bar -> its colour on a light background."""
COLOURS_ON_DARK = {
    "base": "#f2a354",
    "sft": "#74abff",
    "average": "#d3cf4a",
    "rl": "#5fd0a2",
    "training": "#5981bc",
    "held-out": "#f0a6f5",
}
"""The same on a dark background."""


@dataclass(frozen=True)
class Line:
    """Values by step; ``kind`` is a key of ``COLOURS``."""

    name: str
    values: Mapping[int, float]
    kind: str
    dots: bool = False
    """Whether each value gets a dot."""
    intervals: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    """Both ends of each value's interval; empty if they have none."""


@dataclass(frozen=True)
class Panel:
    """Lines by step; a single line has no legend."""

    title: str
    lines: Sequence[Line]
    digits: int = 0
    """Decimals of a value in text."""
    log: bool = False
    share: bool = False
    """Whether the values are shares, in 0..1, which are shown in percent."""
    zero: bool = True
    """Whether an axis that is not logarithmic begins at 0."""


@dataclass(frozen=True)
class Histogram:
    """Lengths, on an axis from 0 to ``end``; ``kind`` is a key of ``COLOURS``."""

    lengths: Sequence[int]
    kind: str
    end: int


def panels(path: Path, drawn: Sequence[Panel]) -> None:
    """Plots the panels, at most three side by side."""
    figure, axes = _figure(len(drawn), 3.2)
    for axis, panel in zip(axes, drawn, strict=True):
        for line in panel.lines:
            _draw(axis, line, 100 if panel.share else 1)
        if len(panel.lines) > 1:
            axis.legend(frameon=False)
        axis.set(xlabel="step", title=f"{panel.title}, %" if panel.share else panel.title)
        axis.xaxis.set_major_formatter("{x:,.10g}")
        if panel.log:
            axis.set_yscale("log")
        elif panel.lines:
            _end_at_ticks(axis, panel)
    _save(figure, path)


def histogram(path: Path, drawn: Mapping[str, Histogram], unit: str) -> None:
    """Plots histograms of lengths in ``unit``, by title, at most three side by side."""
    figure, axes = _figure(len(drawn), 4.5)
    for axis, (title, of) in zip(axes, drawn.items(), strict=True):
        axis.hist(of.lengths, bins=min(50, of.end), range=(0, of.end), color=COLOURS[of.kind])
        axis.set(xlabel=unit, ylabel="count", title=f"{title} ({len(of.lengths):,})")
        axis.set_xlim(0, of.end)
        axis.set_xticks([of.end * i // 4 for i in range(5)])
        for side in (axis.xaxis, axis.yaxis):
            side.set_major_formatter("{x:,.0f}")
    _save(figure, path)


def _draw(axis: Any, line: Line, scale: int) -> None:
    steps, values = list(line.values), [scale * value for value in line.values.values()]
    look: dict[str, Any] = {"color": COLOURS[line.kind], "linewidth": 1, "markersize": 4}
    if line.intervals:
        ends = [line.intervals[step] for step in steps]
        below = [v - scale * low for v, (low, _) in zip(values, ends, strict=True)]
        above = [scale * high - v for v, (_, high) in zip(values, ends, strict=True)]
        look |= {"yerr": [below, above], "capsize": 2.5, "elinewidth": 1}
        axis.errorbar(steps, values, fmt="o-", label=line.name, **look)
    else:
        axis.plot(steps, values, "o-" if line.dots else "-", label=line.name, **look)


def _end_at_ticks(axis: Any, panel: Panel) -> None:
    """Ends the y axis at round values; an axis of shares stays within 0..100."""
    low, high = axis.dataLim.intervaly
    ticks = axis.yaxis.get_major_locator().tick_values(0 if panel.zero else low, high or 1)
    first, last = ticks[0], ticks[-1]
    axis.set_ylim(*((max(first, 0), min(last, 100)) if panel.share else (first, last)))
    axis.yaxis.set_major_formatter("{x:,.10g}")


def _figure(panels: int, width: float) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    columns = min(panels, 3)
    rows = -(-panels // columns)
    figure = Figure(figsize=(width * max(columns, 1.6), 3.4 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[panels:]:
        axis.set_visible(False)
    return figure, axes[:panels]


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    figure.savefig(partial, dpi=110, format="png")
    partial.replace(path)
