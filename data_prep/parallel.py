"""Maps a function over items in parallel: in this process, in worker processes, or on a Ray cluster
through Ray Data.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from common.errors import StageFailed, UserError
from common.ray_session import ray_session

T = TypeVar("T")
R = TypeVar("R")


def run(
    function: Callable[[T], R], items: Sequence[T], engine: str, processes: int | None
) -> Iterator[R]:
    """Yields ``function(item)`` for every item, in any order.

    ``engine`` is ``local`` (``processes`` workers; None: one per core) or ``ray`` (Ray Data, on the
    cluster at RAY_ADDRESS or on this machine). Raises the function's exceptions, and StageFailed
    when a local worker is killed.
    """
    if engine == "ray":
        yield from _ray(function, items)
        return
    workers = min(processes or len(os.sched_getaffinity(0)), len(items))
    if workers <= 1:
        yield from map(function, items)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(os.getpid(),)
    ) as pool:
        try:
            yield from pool.map(function, items)
        except BrokenProcessPool as e:
            raise StageFailed(
                "a worker process was killed, perhaps for lack of memory: run the command again; "
                "if memory was short, use fewer workers (data.processes=N)"
            ) from e


def _start_worker(parent: int) -> None:
    """Ends this worker soon after ``parent`` has died: workers of a killed build must not continue
    to write.
    """
    # One tokenizer thread: there is already one worker per core.
    os.environ["RAYON_NUM_THREADS"] = "1"

    def wait() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _ray(function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    def call(row: dict[str, int]) -> dict[str, list[R]]:
        return {"result": [function(items[row["item"]])]}

    with ray_session(cpus=2):
        import ray.data
        from ray.exceptions import RayTaskError

        settings = ray.data.DataContext.get_current()
        settings.enable_progress_bars = False
        settings.raise_original_map_exception = True
        blocks = [{"item": i} for i in range(len(items))]
        try:
            for row in (
                ray.data.from_items(blocks, override_num_blocks=len(items)).map(call).iter_rows()
            ):
                yield row["result"][0]
        except RayTaskError as e:
            if isinstance(e.cause, UserError | ValueError | OSError):
                raise e.cause from None
            raise
