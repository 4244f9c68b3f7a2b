"""Progress of a long task: a bar on a terminal, a line per tenth in a log, both with rate and time
left.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from tqdm import tqdm

LOG_SECONDS = 5
"""Least seconds between two log lines; a shorter task logs nothing."""


@contextlib.contextmanager
def progress(unit: str, total: int, initial: int = 0) -> Iterator[Callable[[int], None]]:
    """Yields a function that advances the count of ``unit``, from ``initial`` to ``total``, by its
    argument.
    """
    total = max(total, 1)
    terminal, begin, count = sys.stderr.isatty(), time.monotonic(), initial
    said, shown = begin, initial
    with tqdm(
        total=total, initial=initial, unit=f" {unit}", unit_scale=True, disable=not terminal
    ) as bar:

        def advance(by: int) -> None:
            nonlocal count, said, shown
            count += by
            bar.update(by)
            now = time.monotonic()
            if (
                not terminal
                and now - said >= LOG_SECONDS
                and count * 10 // total > shown * 10 // total
            ):
                rate = (count - initial) / (now - begin)
                left = max(0, total - count) / rate
                print(
                    f"{count:,} of {total:,} {unit}, {rate:,.1f}/s, {left:,.0f} s left",
                    file=sys.stderr,
                    flush=True,
                )
                said, shown = now, count

        yield advance
