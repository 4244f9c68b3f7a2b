"""How many rollouts an engine has at a time: what its cache holds at the length expected so far."""

import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from common.records import Key
from eval.generation.scheduler import LATE, OVERCOMMIT, Scheduler
from eval.generation.settings import EngineSettings
from tests.eval.generation.test_scheduler import BUDGET, run, tasks

PROMPT = 10  # as in ``tasks``


def started(scheduler: Scheduler) -> list[Key]:
    return [key for _, key, _ in scheduler.assign()]


def filled(cache: int, budget: int, tokens: int) -> Iterator[tuple[int, int]]:
    """Yields (rollouts that ended, those that run) of an engine all of whose rollouts take
    ``tokens`` tokens.
    """
    scheduler = Scheduler(tasks(1000, 1), [], budget, 512, 64)
    scheduler.join("a", cache)
    for ended in range(300):
        started(scheduler)
        yield ended, len(scheduler.running("a"))
        scheduler.finish(min(scheduler.running("a")), tokens)


def expected(cache: int, budget: int, tokens: int, ended: int) -> int:
    """The rule, for rollouts whose tokens are counted when they end."""
    mean = min(budget, (budget + ended * tokens) / (1 + ended))
    return min(512, max(64, int(cache / (PROMPT + mean))))


@pytest.mark.parametrize(
    ("cache", "budget", "tokens", "most"),
    [
        pytest.param(160_000, 4_096, 400, 390, id="short in a small cache"),
        pytest.param(400_000, 4_096, 300, 512, id="short in a large cache"),
        pytest.param(400_000, 4_096, 1_200, 329, id="in between"),
        pytest.param(800_000, 32_768, 12_000, 66, id="long in a large cache"),
        pytest.param(400_000, 32_768, 12_000, 64, id="long"),
    ],
)
def test_the_number_follows_the_lengths_as_they_become_known(
    cache: int, budget: int, tokens: int, most: int
) -> None:
    before = 0
    for ended, running in filled(cache, budget, tokens):
        slots = expected(cache, budget, tokens, ended)
        # What runs beyond its slots goes on, and what the cache is to hold at the end is bounded.
        assert before - 1 <= running <= max(slots, before - 1)
        if OVERCOMMIT * cache / (PROMPT + budget) >= 64:
            assert running == max(slots, before - 1)
        before = running
    # Nearly: the budget still counts as one more rollout.
    assert 0.96 * most <= running <= most


def test_an_engine_starts_with_64_and_gets_fewer_again_when_long_ones_end() -> None:
    scheduler = Scheduler(tasks(3000, 1), [], 10_000, 512, 64)
    scheduler.join("a", 1_000_000)
    assert len(started(scheduler)) == 99  # the budget's
    for key in sorted(scheduler.running("a")):
        scheduler.finish(key, 500)
    assert len(started(scheduler)) == 512
    for key in sorted(scheduler.running("a")):
        scheduler.finish(key, 9_990)
    assert len(started(scheduler)) == 118
    for key in sorted(scheduler.running("a"))[:17]:
        scheduler.progress(key, 10_000)  # tokens of rollouts that run count too
    scheduler.finish(min(scheduler.running("a")), 10_000)
    assert len(started(scheduler)) == 0


def test_an_integer_is_the_most_whatever_the_cache_holds() -> None:
    for most, cache in ((7, 10**6), (600, 10**6), (90, 4_000)):
        scheduler = Scheduler(tasks(1000, 1), [], BUDGET, most)
        scheduler.join("a", cache)
        assert len(started(scheduler)) == most


def test_engines_have_slots_by_their_own_caches_and_an_awaited_one_their_mean() -> None:
    def late(awaited: int, left: int) -> bool:
        scheduler = Scheduler(tasks(left, 1), [], 1_000, 512, 64)
        scheduler.awaited = awaited
        scheduler.join("small", 1_010)
        scheduler.join("large", 202_000)
        scheduler.finish(min(started(scheduler) and scheduler.running("large")), 1_000)
        return next((late for _, _, late in scheduler.assign()))

    slots = 64 + 200
    assert late(0, int(LATE * slots) + 1) and not late(0, int(LATE * slots) + 2)
    assert late(2, int(LATE * 2 * slots) + 1) and not late(2, int(LATE * 2 * slots) + 2)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    problems=st.integers(1, 8),
    n=st.integers(1, 6),
    deaths=st.integers(0, 12),
)
def test_every_rollout_comes_once(seed: int, problems: int, n: int, deaths: int) -> None:
    rng, todo = random.Random(seed), tasks(problems, n)
    lengths = {key: rng.randint(1, BUDGET) for key in todo}
    least = rng.randint(1, 4)
    scheduler = Scheduler(todo, [], BUDGET, least + rng.randint(0, 12), least)
    finished = run(scheduler, lengths, rng, deaths)
    assert set(finished.values()) <= {1}
    assert sorted([*finished, *scheduler.set_aside]) == sorted(todo)


@pytest.mark.parametrize(
    ("device", "concurrency", "bounds"),
    [
        ("cuda", None, (64, 512)),
        ("cpu", None, (64, 64)),
        ("cuda", 64, (64, 64)),
        ("cpu", 3, (3, 3)),
    ],
)
def test_what_a_recipe_says(device: str, concurrency: int | None, bounds: tuple[int, int]) -> None:
    values = {"engines": 1, "tensor_parallel": 1, "concurrency": concurrency}
    engines = EngineSettings.from_config(OmegaConf.create({"device": device, "eval": values}))
    assert (engines.at_least, engines.at_most) == bounds
