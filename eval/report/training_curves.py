"""Curves of SFT's steps for the report's picture and the page: loss, entropy and token accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.plots import Line, Panel, panels

SHARE = "token accuracy"
FIGURES = {
    "loss": ("Training loss", "loss (nats per token)"),
    "entropy": ("Token entropy", "entropy (nats per token)"),
    "token_accuracy": ("Token accuracy", SHARE),
}
"""Metric -> title of its curve, title of its axis; with the prefix ``val_`` it is the metric on the
held-out rows.
"""


@dataclass(frozen=True)
class Curve:
    """One metric by step, if finite; older runs recorded only the loss."""

    title: str
    axis: str
    training: Mapping[int, float]
    held_out: Mapping[int, float]

    @property
    def panel(self) -> Panel:
        """The curve as drawn. The axis is logarithmic for nats that span more than a factor of
        ten.
        """
        lines = [Line("training", self.training, "training")]
        if self.held_out:
            lines.append(Line("held out", self.held_out, "held-out", dots=True))
        values = [*self.training.values(), *self.held_out.values()]
        share = self.axis == SHARE
        log = not share and 0 < 10 * min(values) < max(values)
        return Panel(self.axis.capitalize(), lines, 4, log, share, zero=False)


def curves(steps: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """Returns the curves of the metrics that ``steps`` recorded."""
    drawn = []
    for metric, (title, axis) in FIGURES.items():
        training, held_out = (
            {s["step"]: s[name] for s in steps if s.get(name) is not None}
            for name in (metric, f"val_{metric}")
        )
        if training:
            drawn.append(Curve(title, axis, training, held_out))
    return drawn


def picture(path: Path, steps: Sequence[Mapping[str, Any]]) -> None:
    """Draws the curves as a PNG file with one panel each; an empty picture if no loss was
    finite.
    """
    drawn = [curve.panel for curve in curves(steps)]
    panels(path, drawn or [Panel(FIGURES["loss"][1].capitalize(), [])])
