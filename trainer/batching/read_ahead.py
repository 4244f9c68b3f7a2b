"""Makes what the next step needs while the present one runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

Key = TypeVar("Key")
Item = TypeVar("Item")


def read_ahead(
    thread: Executor, make: Callable[[Key], Item], keys: Iterable[Key]
) -> Iterator[Item]:
    """Yields ``make(key)`` for each key in order. While one is in use, ``thread`` makes the next
    one, and no more.

    An error of ``make`` is raised where its item would be yielded.
    """
    ready: Future[Item] | None = None
    for key in keys:
        following = thread.submit(make, key)
        if ready is not None:
            yield ready.result()
        ready = following
    if ready is not None:
        yield ready.result()
