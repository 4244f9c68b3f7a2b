"""Reading ahead: one item and no more, in order, with its errors at its own place, and no draw."""

import random
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from threading import Event, current_thread, main_thread

import numpy as np
import pytest
import torch

from trainer.batching import sampler
from trainer.batching.balance import plan_step
from trainer.batching.flops import Shape
from trainer.batching.packing import pack
from trainer.batching.read_ahead import read_ahead

SHAPE = Shape(2, 64, 128, 4, 2, 16, 300, tied=True)


@pytest.fixture
def thread() -> Iterator[Executor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def test_one_item_is_made_ahead_and_no_more(thread: Executor) -> None:
    began: list[int] = []

    def make(key: int) -> str:
        assert current_thread() is not main_thread()
        began.append(key)
        return f"item {key}"

    items = read_ahead(thread, make, range(4))
    assert began == []
    for key in range(4):
        assert next(items) == f"item {key}"
        thread.submit(int).result()  # what the thread has to do is done
        assert began == list(range(min(key + 2, 4)))
    assert next(items, None) is None
    assert list(read_ahead(thread, make, [])) == []


def test_the_next_item_is_made_while_one_is_in_use(thread: Executor) -> None:
    used = Event()

    def make(key: int) -> bool:
        return key == 0 or used.wait(60)

    items = read_ahead(thread, make, range(2))
    assert next(items)  # does not wait for the second one, which waits for this
    used.set()
    assert next(items)


def test_an_error_is_raised_by_the_step_that_needs_the_item(thread: Executor) -> None:
    def make(key: int) -> int:
        return 6 // (2 - key)

    items = read_ahead(thread, make, range(4))
    assert next(items) == 3
    assert next(items) == 6
    with pytest.raises(ZeroDivisionError):
        next(items)


def test_nothing_is_drawn_from_the_generators_of_training() -> None:
    def states() -> tuple[object, ...]:
        words = np.random.get_state(legacy=False)["state"]["key"].tolist()
        return random.getstate(), words, torch.get_rng_state().tolist()

    before = states()
    chosen = sampler.step_rows(3, 40, 8, seed=1).tolist()
    plan = plan_step({row: 10 + row for row in chosen}, 2, 256, SHAPE)
    ones = {row: torch.ones(10 + row, dtype=torch.int64) for row in chosen}
    for micro in plan.micro_batches[0]:
        pack([{"input_ids": ones[row], "loss_mask": ones[row]} for row in micro], 2, 1)
    assert states() == before
