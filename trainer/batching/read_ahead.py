"""Prepares the input of the next step while the current one runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

Key = TypeVar("Key")
Item = TypeVar("Item")


def read_ahead(
    thread: Executor, make: Callable[[Key], Item], keys: Iterable[Key]
) -> Iterator[Item]:
    """Yields ``make(key)`` for each key in order. While the caller uses one, ``thread`` makes the
    next one, but no further ones.

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
