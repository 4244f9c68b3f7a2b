"""Progress of a long count: a bar on a terminal, a line every tenth in a log, both with rate and time left."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from tqdm import tqdm


@contextlib.contextmanager
def progress(unit: str, total: int, initial: int = 0) -> Iterator[Callable[[int], None]]:
    """Yields a function that counts ``unit`` up from ``initial`` towards ``total``."""
    terminal, begin, count = sys.stderr.isatty(), time.monotonic(), initial
    with tqdm(total=total, initial=initial, unit=f" {unit}", disable=not terminal) as bar:

        def advance(by: int) -> None:
            nonlocal count
            before, count = count, count + by
            bar.update(by)
            if not terminal and count * 10 // total > before * 10 // total:
                rate = (count - initial) / (time.monotonic() - begin)
                left = max(0, total - count) / rate
                print(f"{count:,} of {total:,} {unit}, {rate:,.1f}/s, {left:,.0f} s left", file=sys.stderr, flush=True)

        yield advance
