"""Detectors on one series of a run's steps; they depend only on the values fed to them.

Every band comes from the run itself: the median of a trailing window and its MAD, the median
distance from it, which 25 strange steps of 50 do not move. 1.4826 x MAD estimates a normal
standard deviation (Leys et al. 2013, doi:10.1016/j.jesp.2013.03.013).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

WINDOW = 50
"""Number of earlier steps that a step is compared with."""
HISTORY = 20
"""Minimum number of earlier steps for judging a spike."""
SPIKE = 12.0
"""A spike is at least this many scales above the expected value. Noise with the heavy tails of
Student's t with 4 degrees of freedom exceeds 12 in 1 of 10,000 steps, 7 in 8 of them; normal noise
never. OLMo 2 counts spikes from 7 standard deviations of the last 1,000 steps (arXiv:2501.00656),
but in hindsight, without raising alarms.
"""
LEAST_SPIKE = math.log(1.25)
"""A spike is also at least a quarter above the median, because some runs have nearly no noise."""
QUIET = 10
"""Steps without the condition that end an episode; only a new episode raises an alarm."""
RECENT = 5
"""Number of newest steps whose median is the present level of a series."""
DRIFT = 10.0
"""A fast change is at least this many scales between the recent steps and the trend."""
NORMAL = 1.4826


class Episode:
    """Detects the first step of a condition that lasts, with pauses of at most ``quiet`` steps."""

    def __init__(self, quiet: int = QUIET) -> None:
        self.quiet = quiet
        self._calm = quiet + 1

    def begins(self, on: bool) -> bool:
        """Takes the next step; returns whether the condition is on after having been off."""
        begins = on and self._calm > self.quiet
        self._calm = 0 if on else self._calm + 1
        return begins


class Spike:
    """High values of a positive series, on a log scale: noise of losses and gradient norms is in
    proportion to them.
    """

    def __init__(self, trend: bool) -> None:
        """With ``trend``, a value is compared with the newest values, in the scale of the changes
        from step to step; this finds spikes in a series that falls, however steeply. Without it, a
        value is compared with the window's median, in the scale of its spread; this suits a series
        that wanders.
        """
        self.trend = trend
        self.past: deque[tuple[float, int]] = deque(maxlen=WINDOW)
        self.episode = Episode()

    def feed(self, value: float, rows: int) -> tuple[float, float] | None:
        """Takes a step's value and its number of rows. Returns (expected value, upper end of the
        band) if a spike begins.

        A mean over fewer rows is noisier, and the norm of its gradient larger, in proportion to the
        root of their number: the last step of an epoch may be small.
        """
        expected, limit = math.nan, math.inf
        if len(self.past) >= HISTORY:
            logs, counts = zip(*self.past, strict=True)
            centre, scale = self._band(logs)
            fewer = max(1.0, median(counts) / max(rows, 1))
            band = max(SPIKE * scale, LEAST_SPIKE) * math.sqrt(fewer) + math.log(fewer) / 2
            expected, limit = math.exp(centre), math.exp(min(centre + band, 700.0))
        self.past.append((math.log(max(value, 1e-12)), rows))
        return (expected, limit) if self.episode.begins(value > limit) else None

    def _band(self, logs: Sequence[float]) -> tuple[float, float]:
        if not self.trend:
            return median(logs), spread(logs)
        changes = [after - before for before, after in pairwise(logs)]
        return median(logs[-RECENT:]), spread(changes) / math.sqrt(2)


class Trend:
    """Detects changes of a series that leave its own trend."""

    def __init__(self) -> None:
        self.past: deque[float] = deque(maxlen=WINDOW + RECENT)
        self.up, self.down = Episode(), Episode()

    def clear(self) -> None:
        """Forgets the values; call it where the series may jump."""
        self.past.clear()

    def feed(self, value: float) -> float:
        """Takes a step's value. Returns how many scales the last ``RECENT`` values are above
        (positive) or below the trend of the ``WINDOW`` before them if a fast change begins, else 0.
        """
        self.past.append(value)
        distance = self.distance()
        begins = self.up.begins(distance > DRIFT), self.down.begins(distance < -DRIFT)
        return distance if any(begins) else 0.0

    def distance(self) -> float:
        """Returns the median distance of the recent values from the trend, in scales."""
        if len(self.past) < WINDOW + RECENT:
            return 0.0
        values = list(self.past)
        slope, level = line(values[:WINDOW])
        off = [y - level - slope * x for x, y in enumerate(values)]
        return median(off[WINDOW:]) / max(spread(off[:WINDOW]), 1e-3)


def spread(values: Sequence[float]) -> float:
    """Returns 1.4826 x the median absolute deviation from the median."""
    centre = median(values)
    return NORMAL * median(abs(value - centre) for value in values)


def line(values: Sequence[float]) -> tuple[float, float]:
    """Returns (slope, level at 0) of the line through equidistant values by Theil and Sen: the
    median of the slopes of all pairs, and of what remains.
    """
    slope = median(
        (values[j] - values[i]) / (j - i) for j in range(1, len(values)) for i in range(j)
    )
    return slope, median(y - slope * x for x, y in enumerate(values))
