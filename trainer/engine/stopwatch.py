"""Times the work of this rank's device: whole steps, and the output head, in which no rank waits
for another.

Step times do not identify a slow rank, because all ranks wait for it in each layer. The output head
runs without communication between the gather of its weights and the reduction of its gradient, so
its time per token is the rank's own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from verl.utils.device import get_device_name


class Timestamp:
    """A point in time: on a GPU, when its stream reaches this point; on a CPU, now."""

    def __init__(self) -> None:
        self._event: Any = None
        self._seconds = 0.0
        if get_device_name() == "cuda":
            self._event = torch.cuda.Event(enable_timing=True)
            self._event.record()
        else:
            self._seconds = time.perf_counter()

    def wait(self) -> None:
        """Waits until the device has reached this point."""
        if self._event is not None:
            self._event.synchronize()

    def since(self, earlier: Timestamp) -> float:
        """Returns the seconds from ``earlier`` to this timestamp; the device must have reached
        both.
        """
        if self._event is None:
            return self._seconds - earlier._seconds
        return float(earlier._event.elapsed_time(self._event)) / 1000


Laps = list[tuple[Timestamp, Timestamp]]
"""(begin, end) of each lap."""


class Stopwatch:
    """Records laps of this rank's device without waiting for it."""

    def __init__(self) -> None:
        self._laps: Laps = []

    @contextmanager
    def lap(self) -> Iterator[None]:
        """Times the work launched within the context."""
        begin = Timestamp()
        yield
        self._laps.append((begin, Timestamp()))

    def take(self) -> Laps:
        """Returns the laps since the last call."""
        laps, self._laps = self._laps, []
        return laps


def seconds(laps: Laps) -> float:
    """Returns the total seconds of the laps; the device must have finished them."""
    return sum(end.since(begin) for begin, end in laps)
