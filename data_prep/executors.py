"""Where units are mapped: in this process, in worker processes, or on a Ray cluster through Ray Data."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from data_prep.ray_session import ray_session

T = TypeVar("T")
R = TypeVar("R")


def run(function: Callable[[T], R], items: Sequence[T], engine: str, processes: int | None) -> Iterator[R]:
    """Yields ``function(item)`` for every item, in any order.

    ``engine`` is ``local`` (``processes`` workers, null for one a core) or ``ray`` (Ray Data, on the cluster
    at RAY_ADDRESS or this machine). An exception of the function is raised here.
    """
    if engine == "ray":
        yield from _ray(function, items)
        return
    workers = min(processes or len(os.sched_getaffinity(0)), len(items))
    if workers <= 1:
        yield from map(function, items)
        return
    # Forked from a server without threads: this process may hold some.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["data_prep.mapping", "transformers"])
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        yield from pool.map(function, items)


def _ray(function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    def call(row: dict[str, int]) -> dict[str, list[R]]:
        return {"result": [function(items[row["item"]])]}

    with ray_session(cpus=2):
        import ray.data
        from ray.exceptions import RayTaskError

        ray.data.DataContext.get_current().enable_progress_bars = False
        blocks = [{"item": i} for i in range(len(items))]
        try:
            for row in ray.data.from_items(blocks, override_num_blocks=len(items)).map(call).iter_rows():
                yield row["result"][0]
        except RayTaskError as e:
            raise e.cause if isinstance(e.cause, ValueError) else e from e
