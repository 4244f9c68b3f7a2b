"""Profiler traces of chosen steps, for Perfetto or chrome://tracing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainer.recipe.validate import span


class Profiler:
    """Traces the steps of ``train.profile_steps`` on this rank into one file."""

    def __init__(self, steps: str | None, total: int, path: Path) -> None:
        self.first, self.last = span(steps) if steps else (total + 1, total)
        self.last = min(self.last, total)
        self.path = path
        self.profile: Any = None

    def begins(self, number: int) -> bool:
        """Returns whether step ``number`` (1-based) is the first to trace; no earlier step may
        still be running then.
        """
        return number == self.first

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Traces the enclosed step ``number`` (1-based) if it is among the chosen ones."""
        if self.profile is None and self.first <= number <= self.last:
            from torch.profiler import profile

            self.profile = profile(record_shapes=True)
            self.profile.start()
        yield
        if number == self.last:
            self._write()

    def __enter__(self) -> Profiler:
        return self

    def __exit__(self, *exception: object) -> None:
        """Writes the steps traced so far, even if training stops before the last chosen one."""
        self._write()

    def _write(self) -> None:
        if self.profile is not None:
            self.profile.stop()
            self.profile.export_chrome_trace(str(self.path))
            self.profile = None
