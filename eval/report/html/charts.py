"""Draws the page's charts as inline SVG; the colours come from the style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup, escape

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 66, 22, 14, 44
HOVERS = 200
"""Maximum number of points for which a line shows values under the pointer."""

Point = tuple[float, float]
Write = Callable[[float], str]


@dataclass(frozen=True)
class Line:
    """One data series; ``kind`` is a key of ``common.plots.COLOURS``, possibly followed by further
    classes of the style sheet.
    """

    name: str
    kind: str
    points: Sequence[Point]
    dots: bool = False
    intervals: Sequence[tuple[float, float]] = ()
    """Both ends of each point's error bar; empty if there are none."""
    steps: bool = False
    """If true, points are the left edges of bins, and the last point is the right edge of the last
    bin; the area below the line is filled.
    """


@dataclass(frozen=True)
class Axis:
    """An axis: its ends, its title, and the formats of its ticks and of values under the
    pointer.
    """

    title: str
    low: float
    high: float
    write: Write
    exact: Write
    log: bool = False
    marks: Sequence[float] = ()
    """Tick values that replace the round ones."""

    def share(self, value: float) -> float:
        """Returns a value's position along the axis: 0 at ``low``, 1 at ``high``."""
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return (value - low) / (high - low or 1)

    def ending_at_ticks(self) -> Axis:
        """Returns the axis extended to the last tick before ``low`` and the first one after
        ``high``; a logarithmic axis is returned unchanged.
        """
        if self.log:
            return self
        if self.low == self.high:
            return replace(self, high=self.low + 1).ending_at_ticks()
        step = self._step
        low, high = math.floor(self.low / step + 1e-9), math.ceil(self.high / step - 1e-9)
        marks = [i * step for i in range(low, high + 1)]
        return replace(self, low=marks[0], high=marks[-1], marks=marks)

    @property
    def _step(self) -> float:
        """The distance of two ticks on an axis that is not logarithmic."""
        step = 10.0 ** math.floor(math.log10(max(self.high - self.low, 1e-12)))
        return step * next(
            m for m in (0.1, 0.2, 0.5, 1, 2) if (self.high - self.low) / (step * m) <= 6
        )

    def ticks(self) -> list[float]:
        """Returns ``marks``, else round values: at most seven, or on a log axis over more than one
        decade 1, 2 and 5 times the powers of ten (only the powers if those are more than eight).
        """
        if self.marks:
            return list(self.marks)
        if self.log and self.high > 10 * self.low:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            ticks = [m * 10.0**p for p in powers for m in (1, 2, 5)]
            found = [t for t in ticks if self.low <= t <= self.high]
            return found if len(found) <= 8 else [t for t in found if math.log10(t).is_integer()]
        step = self._step
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def share(value: float) -> str:
    """Returns a tick of shares, in 0..1, in percent."""
    return f"{value * 100:.3g} %"


def number(value: float) -> str:
    """Returns a tick: no decimals if it is integral or at least 100, else three significant digits,
    with a power of ten below 0.001.
    """
    if abs(value) >= 100 or value == round(value):
        return f"{value:,.0f}"
    if abs(value) < 0.001:
        digits, _, power = f"{value:.2e}".partition("e")
        return f"{float(digits):g}e{int(power)}"
    return f"{value:.3g}"


def count(value: float) -> str:
    """Returns a whole number."""
    return f"{value:,.0f}"


def chart(title: str, x: Axis, y: Axis, lines: Sequence[Line]) -> Markup:
    """Returns one chart as SVG; ``title`` is its label for screen readers."""
    plot_width, plot_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def at(point: Point) -> tuple[str, str]:
        return (
            f"{LEFT + x.share(point[0]) * plot_width:.1f}",
            f"{TOP + (1 - y.share(point[1])) * plot_height:.1f}",
        )

    drawn = []
    for tick in y.ticks():
        _, py = at((x.low, tick))
        drawn.append(f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{py}" y2="{py}"/>')
        drawn.append(
            f'<text x="{LEFT - 8}" y="{py}" dy="0.32em" text-anchor="end">'
            f"{escape(y.write(tick))}</text>"
        )
    base = HEIGHT - BOTTOM
    for tick in x.ticks():
        px, _ = at((tick, y.low))
        drawn.append(f'<line class="tick" x1="{px}" x2="{px}" y1="{base}" y2="{base + 4}"/>')
        drawn.append(
            f'<text x="{px}" y="{base + 18}" text-anchor="middle">{escape(x.write(tick))}</text>'
        )
    drawn.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>')
    below = f'x="{LEFT + plot_width / 2}" y="{HEIGHT - 6}"'
    beside = f'transform="translate(13 {TOP + plot_height / 2}) rotate(-90)"'
    for place, axis in ((below, x), (beside, y)):
        drawn.append(f'<text {place} text-anchor="middle">{escape(axis.title)}</text>')
    for line in lines:
        drawn.append(_line(line, x, y, at, base))
    body = "".join(drawn)
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{body}</svg>'
    )


def _line(line: Line, x: Axis, y: Axis, at: Callable[[Point], tuple[str, str]], base: int) -> str:
    spots = [at(point) for point in line.points]
    if line.steps:
        path = f"M{spots[0][0]},{base}" + "".join(f"H{px}V{py}" for px, py in spots)
        return f'<path class="area {line.kind}" d="{path}"/>' + _bars(line, x, y, spots)
    path = "M" + "L".join(f"{px},{py}" for px, py in spots)
    drawn = f'<path class="line {line.kind}" d="{path}"/>'
    if line.intervals:
        drawn += f'<path class="bars {line.kind}" d="{_error_bars(line, at)}"/>'
    stride = -(-len(spots) // HOVERS) or 1
    look = "dot" if line.dots else "hover"
    ends = (f" [{y.exact(low)}, {y.exact(high)}]" for low, high in line.intervals[::stride])
    for (px, py), (vx, vy) in list(zip(spots, line.points, strict=True))[::stride]:
        hint = escape(f"{line.name}, {x.title} {x.exact(vx)}: {y.exact(vy)}{next(ends, '')}")
        drawn += (
            f'<circle class="{look} {line.kind}" cx="{px}" cy="{py}" r="{3.2 if line.dots else 6}">'
        )
        drawn += f"<title>{hint}</title></circle>"
    return drawn


def _error_bars(line: Line, at: Callable[[Point], tuple[str, str]]) -> str:
    """Returns the path of the points' intervals, with a short line across each end."""
    path = ""
    for (value, _), (low, high) in zip(line.points, line.intervals, strict=True):
        (px, bottom), (_, top) = at((value, low)), at((value, high))
        path += f"M{px},{bottom}V{top}M{px},{bottom}m-4,0h8M{px},{top}m-4,0h8"
    return path


def _bars(line: Line, x: Axis, y: Axis, spots: Sequence[tuple[str, str]]) -> str:
    """Returns a rectangle per bin that shows the bin's count under the pointer."""
    drawn = ""
    for i in range(len(spots) - 1):
        (x0, y0), (x1, _) = spots[i], spots[i + 1]
        low, high = (x.exact(line.points[j][0]) for j in (i, i + 1))
        hint = escape(f"{line.name}, {low} to {high} {x.title}: {y.exact(line.points[i][1])}")
        size = f'width="{float(x1) - float(x0):.1f}" height="{HEIGHT - BOTTOM - float(y0):.1f}"'
        drawn += f'<rect class="hover" x="{x0}" y="{y0}" {size}><title>{hint}</title></rect>'
    return drawn
