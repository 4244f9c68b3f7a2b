"""Progress on stderr: live lines on a terminal, a plain line at intervals in a log.

Rates count from the first finished item, so that start-up does not slow them.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

from common.text import duration

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.live import Live

LOG_SECONDS, LONG_LOG_SECONDS = 15.0, 60.0
"""Seconds between two lines in a log, at first and after some minutes. A task shorter than the
first interval logs nothing.
"""
QUICK = 3.0
"""A bar that took fewer seconds leaves nothing behind."""
BAR = 24
"""Maximum width of a bar, in columns; on a narrow terminal the text has priority."""

_shown: list[Line] = []
_live: Live | None = None


class Line:
    """One task's line: a count out of a known total or, if ``total`` is None, what the command is
    waiting for.
    """

    def __init__(self, what: str, total: int | None = None, initial: int = 0, scale: int = 1):
        """Counts are divided by ``scale`` for display: with ``scale`` 10^6, bytes are shown
        in MB.
        """
        self.what, self.total, self.count, self.scale = what, total, initial, scale
        self.initial, self.begin, self.note = initial, time.monotonic(), ""
        self.first: tuple[float, int] | None = None
        self.end: float | None = None

    def __call__(self, by: int = 1) -> None:
        """Counts ``by`` more items."""
        self.count += by
        if self.first is None and by:
            self.first = time.monotonic(), self.count

    def say(self, note: str, left: float | None = None) -> None:
        """Sets the text next to the count; ``left`` overrides the seconds left that follow from the
        rate.
        """
        self.note = note
        self.end = None if left is None else time.monotonic() + left

    @property
    def rate(self) -> float | None:
        """Items per second since the first one finished; None before the second."""
        if self.first is None or self.count == self.first[1]:
            return None
        return (self.count - self.first[1]) / max(time.monotonic() - self.first[0], 1e-9)

    @property
    def pause(self) -> float:
        """Seconds to the next line in a log."""
        return min(max(LOG_SECONDS, (time.monotonic() - self.begin) / 10), LONG_LOG_SECONDS)

    def facts(self) -> list[str]:
        """Returns the texts next to the name, without the bar."""
        now = time.monotonic()
        since = duration(now - self.begin)
        if self.total is None:
            return [self.note, since] if self.note else [since]
        facts = [f"{self.count // self.scale:,}/{self.total // self.scale:,}"]
        rate = self.rate
        if self.count >= self.total:
            return [*facts, since]
        if rate:
            facts.append(_per(rate / self.scale))
        facts += [self.note] if self.note else []
        if self.end is not None:
            return [*facts, f"{duration(self.end - now)} left"]
        left = f"{duration((self.total - self.count) / rate)} left" if rate else since
        return [*facts, left]

    @cached_property
    def _spinner(self) -> Any:
        from rich.spinner import Spinner

        return Spinner("line")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        facts, name = "  ".join(self.facts()), Text(self.what, no_wrap=True, overflow="ellipsis")
        row = Table.grid(padding=(0, 2, 0, 0))
        room = options.max_width - len(facts) - len(self.what) - 4
        if self.total is None:
            row.add_row(self._spinner, name, Text(facts, style="dim", no_wrap=True))
        elif room < 4:
            row.add_row(name, Text(facts, no_wrap=True, overflow="ellipsis"))
        else:
            bar = ProgressBar(total=max(self.total, 1), completed=self.count, width=min(BAR, room))
            row.add_row(name, bar, Text(facts, no_wrap=True))
        yield row


@contextlib.contextmanager
def progress(unit: str, total: int, initial: int = 0, scale: int = 1) -> Iterator[Line]:
    """Yields the line of a count of ``unit`` from ``initial`` to ``total``; call it with the number
    of items that have finished. A line that took some seconds stays on the terminal.
    """
    with _showing(Line(unit, total, initial, scale), stays=total > 0) as line:
        yield line


@contextlib.contextmanager
def waiting(what: str) -> Iterator[Line]:
    """Shows what the command is waiting for ("starting Ray"), and for how long, while the context
    is open.
    """
    with _showing(Line(what), stays=False) as line:
        yield line


@contextlib.contextmanager
def _showing(line: Line, stays: bool) -> Iterator[Line]:
    how = _moving(line, stays) if sys.stderr.isatty() else _logged(line)
    _shown.append(line)
    try:
        with how:
            yield line
    finally:
        _shown.remove(line)


@contextlib.contextmanager
def _moving(line: Line, stays: bool) -> Iterator[None]:
    """Adds a line below those that are shown already, all in one live display."""
    global _live
    from rich.console import Console, Group
    from rich.live import Live

    outermost = _live is None
    if _live is None:
        _live = Live(
            get_renderable=lambda: Group(*_shown),
            console=Console(stderr=True, highlight=False),
            refresh_per_second=5,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
        )
        _live.start()
    try:
        yield
    finally:
        if stays and time.monotonic() - line.begin > QUICK:
            _live.console.print(line)
        if outermost:
            _live.stop()
            _live = None


@contextlib.contextmanager
def _logged(line: Line) -> Iterator[None]:
    """Prints the line to the log at intervals while it is the innermost one."""
    ended = threading.Event()

    def tell() -> None:
        while not ended.wait(line.pause):
            if line is _shown[-1]:
                print(f"{line.what}: {', '.join(line.facts())}", file=sys.stderr, flush=True)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _per(rate: float) -> str:
    if rate >= 10:
        return f"{rate:,.0f}/s"
    return f"{rate:.1f}/s" if rate >= 0.5 else f"{rate * 60:.1f}/min"
