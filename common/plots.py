"""Plots for reports, as PNG files."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

COLOURS = ("#3b6fb6", "#999999", "#c8553d", "#2f8f6b")

Line = tuple[str, Mapping[int, float], str, bool]
"""Name, values by step, colour, and whether each value gets a dot."""


def panels(path: Path, lines: Mapping[str, Sequence[Line]], log: Collection[str] = ()) -> None:
    """Plots lines by step, one panel per title, side by side, on a log scale if the title is in
    ``log``; a panel with one line has no legend.
    """
    figure, axes = _figure(len(lines), 3.2)
    for axis, (title, drawn) in zip(axes, lines.items(), strict=True):
        for name, values, colour, dots in drawn:
            axis.plot(
                list(values),
                list(values.values()),
                "o-" if dots else "-",
                color=colour,
                linewidth=1,
                markersize=4,
                label=name,
            )
        if len(drawn) > 1:
            axis.legend(frameon=False)
        if title in log:
            axis.set_yscale("log")
        axis.set(xlabel="step", title=title)
    _save(figure, path)


def histogram(path: Path, panels: Mapping[str, Sequence[int]], unit: str) -> None:
    """Plots histograms of lengths in ``unit``, one panel per collection, on a common axis."""
    figure, axes = _figure(len(panels))
    longest = max(max(lengths) for lengths in panels.values())
    for axis, colour, (title, lengths) in zip(axes, cycle(COLOURS), panels.items(), strict=False):
        axis.hist(lengths, bins=min(50, longest), range=(0, longest), color=colour)
        axis.set(xlabel=unit, ylabel="count", title=f"{title} ({len(lengths):,})")
    _save(figure, path)


def _figure(columns: int, width: float = 4.5) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * max(columns, 1.6), 3.4), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    figure.savefig(partial, dpi=110, format="png")
    partial.replace(path)
