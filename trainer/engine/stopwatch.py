"""Times the same work on every rank, without the time in which ranks wait for each other.

The time of a step says nothing about a slow rank: in each layer all ranks wait for it. Between its
gathered weights and its gradient the output head runs alone, so its time per token is the rank's
own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from verl.utils.device import get_device_name


class Stopwatch:
    """Sums the laps of this rank's device; on a GPU by events on its stream, without a
    synchronisation.
    """

    def __init__(self) -> None:
        self._laps: list[tuple[Any, Any]] = []

    @contextmanager
    def lap(self) -> Iterator[None]:
        """Times what is done in the context."""
        begin = _now()
        yield
        self._laps.append((begin, _now()))

    def take(self) -> float:
        """Returns the seconds of the laps since the last call; the device must have ended them."""
        laps, self._laps = self._laps, []
        return sum(_seconds(begin, end) for begin, end in laps)


def _now() -> Any:
    if get_device_name() != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _seconds(begin: Any, end: Any) -> float:
    return end - begin if isinstance(begin, float) else begin.elapsed_time(end) / 1000
