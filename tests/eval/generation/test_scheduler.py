"""Decisions alone: no engine, no clock."""

import random
from collections import Counter
from itertools import cycle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from common.records import Key
from eval.generation import hang_detector
from eval.generation.engines import placement
from eval.generation.hang_detector import Pulse
from eval.generation.scheduler import LATE, LONGEST_FIRST, OVERCOMMIT, SUSPECTS, UNHEARD, Scheduler
from eval.generation.settings import EngineSettings
from tests.bench import decode

BUDGET = 100


def tasks(problems: int, n: int) -> dict[Key, int]:
    return {("s", str(p), k): 10 for p in range(problems) for k in range(n)}


def starts(scheduler: Scheduler) -> list[tuple[str, Key]]:
    return [(name, key) for name, key, _ in scheduler.assign()]


def run(
    scheduler: Scheduler,
    lengths: dict[Key, int],
    rng: random.Random,
    deaths: int,
    poison: frozenset[Key] = frozenset(),
) -> Counter[Key]:
    """Plays engines that advance at random, die ``deaths`` times at random and whenever poison has
    come half-way.
    """
    finished: Counter[Key] = Counter()
    tokens: dict[Key, int] = {}
    for name in "ab":
        scheduler.join(name, 400)
    for _ in range(100_000):
        if scheduler.done:
            return finished
        for _, key, _ in scheduler.assign():
            assert key not in tokens
            tokens[key] = 0
        name = rng.choice("ab")
        if rng.random() < 0.02 and deaths:
            deaths -= 1
            die(scheduler, name, tokens)
            continue
        for key in sorted(scheduler.running(name)):
            tokens[key] = min(lengths[key], tokens[key] + rng.randint(1, 20))
            if key in poison and 2 * tokens[key] >= lengths[key]:
                die(scheduler, name, tokens)
                break
            if tokens[key] == lengths[key]:
                finished[key] += 1
                scheduler.finish(key, tokens.pop(key))
            elif rng.random() < 0.5:
                scheduler.progress(key, tokens[key])
    raise AssertionError("it does not end")


def die(scheduler: Scheduler, name: str, tokens: dict[Key, int]) -> None:
    for key in scheduler.running(name):
        del tokens[key]
    scheduler.leave(name)
    scheduler.join(name, 400)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    problems=st.integers(1, 8),
    n=st.integers(1, 6),
    deaths=st.integers(0, 12),
)
def test_every_rollout_comes_once_however_engines_die(
    seed: int, problems: int, n: int, deaths: int
) -> None:
    rng, todo = random.Random(seed), tasks(problems, n)
    lengths = {key: rng.randint(1, BUDGET) for key in todo}
    poison = frozenset(key for key in todo if rng.random() < 0.05)
    scheduler = Scheduler(todo, [], BUDGET, concurrency=rng.randint(1, 20))
    finished = run(scheduler, lengths, rng, deaths, poison)
    assert set(finished.values()) <= {1}
    assert sorted([*finished, *scheduler.set_aside]) == sorted(todo)
    assert poison <= set(scheduler.set_aside)


@pytest.mark.parametrize("seed", range(5))
def test_only_what_kills_engines_is_set_aside(seed: int) -> None:
    todo = tasks(10, 8)
    rng = random.Random(seed)
    lengths = {key: rng.randint(50, BUDGET) for key in todo}
    poison = rng.choice(sorted(todo))
    scheduler = Scheduler(todo, [], BUDGET, concurrency=8)
    finished = run(scheduler, lengths, rng, 0, frozenset({poison}))
    assert scheduler.set_aside == [poison] and len(finished) == len(todo) - 1


def test_suspects_are_kept_apart() -> None:
    scheduler = Scheduler(tasks(40, 1), [], BUDGET, concurrency=20)
    scheduler.join("a", 10**6)
    first = {key for _, key, _ in scheduler.assign()}
    for key in first:
        scheduler.progress(key, 5)
    assert len(first) == 20 and scheduler.leave("a") == []
    scheduler.join("b", 10**6)
    second = {key for _, key, _ in scheduler.assign()}
    assert len(second) == 20 and len(second & first) == SUSPECTS
    scheduler.leave("b")
    scheduler.join("c", 10**6)
    third = {key for _, key, _ in scheduler.assign()}
    assert (
        len(third) == 8 + SUSPECTS and not third & first & second
    )  # eight were never on an engine that died


def test_after_two_deaths_a_suspect_is_alone_until_it_has_passed_where_its_engine_died() -> None:
    one, two = keys = [("s", "0", 0), ("s", "1", 0)]
    scheduler = Scheduler(dict.fromkeys(keys, 10), [], 10**5, concurrency=20)
    for name in "ab":
        scheduler.join(name, 10**6)
        assert [key for _, key, _ in scheduler.assign()] == keys
        for key in keys:
            scheduler.progress(key, 5_000)
        assert scheduler.leave(name) == []
    scheduler.join("c", 10**6)
    assert starts(scheduler) == [("c", one)]
    scheduler.progress(one, 5_000 + UNHEARD)
    assert list(scheduler.assign()) == []
    scheduler.progress(one, 5_001 + UNHEARD)
    assert starts(scheduler) == [("c", two)]
    assert scheduler.leave("c") == scheduler.set_aside == [two]
    scheduler.join("d", 10**6)
    assert starts(scheduler) == [("d", one)]
    scheduler.finish(one, 9_000)
    assert scheduler.done


def test_in_file_order_while_much_is_left_and_what_starts_in_the_end_is_late() -> None:
    todo = tasks(3, 4)
    scheduler = Scheduler(todo, [], BUDGET, concurrency=2)
    scheduler.join("a", 10**6)
    given: list[tuple[Key, bool]] = []
    for ended in range(len(todo)):
        given += [(key, late) for _, key, late in scheduler.assign()]
        scheduler.finish(given[ended][0], 50)
    assert scheduler.done
    # One is still running whenever the next starts.
    ordered = len(todo) - (int(2 * LONGEST_FIRST) - 1)
    assert [key for key, _ in given[:ordered]] == list(todo)[:ordered]
    assert given[ordered][0] == ("s", "2", 0)  # a pilot
    ends = int(2 * LATE) - 1
    assert [late for _, late in given] == [False] * (len(todo) - ends) + [True] * ends


def test_pilots_then_the_longest_expected_towards_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eval.generation.scheduler.LONGEST_FIRST", 6)
    scheduler = Scheduler(tasks(3, 4), [(("s", "9", 0), 3)], BUDGET, concurrency=2)
    scheduler.join("a", 10**6)
    assert [key for _, key, _ in scheduler.assign()] == [("s", "0", 0), ("s", "1", 0)]
    scheduler.finish(("s", "0", 0), 5)
    assert starts(scheduler) == [("a", ("s", "2", 0))]
    scheduler.finish(("s", "2", 0), 60)
    assert starts(scheduler) == [("a", ("s", "2", 1))]
    scheduler.progress(("s", "1", 0), 99)  # not done, and longer than all that are
    scheduler.finish(("s", "2", 1), 1)
    assert starts(scheduler) == [("a", ("s", "1", 1))]


@pytest.mark.parametrize(
    ("room", "order"),
    [
        pytest.param(2, ["2", "1"], id="a pilot first"),
        pytest.param(3, ["1", "2", "0"], id="all at once: the longest"),
    ],
)
def test_what_was_done_before_counts(room: int, order: list[str]) -> None:
    todo = {("s", "0", 1): 10, ("s", "1", 1): 10, ("s", "2", 0): 10}
    scheduler = Scheduler(todo, [(("s", "0", 0), 5), (("s", "1", 0), 90)], BUDGET, concurrency=room)
    scheduler.join("a", 10**6)
    assert [key[1] for _, key, _ in scheduler.assign()] == order


def test_all_that_fits_at_once_is_dealt_out_evenly_and_late() -> None:
    names = ["a", "b", "c"]
    scheduler = Scheduler(tasks(5, 4), [], BUDGET, concurrency=7)
    for name in names:
        scheduler.join(name, 10**6)
    given = list(scheduler.assign())
    assert [(name, key) for name, key, _ in given] == list(
        zip(cycle(names), tasks(5, 4), strict=False)
    )
    assert all(late for _, _, late in given)


def test_engines_share_the_work_and_the_problems() -> None:
    scheduler = Scheduler(tasks(6, 4), [], BUDGET, concurrency=64)
    for name in "abcd":
        scheduler.join(name, 10**6)
    given = starts(scheduler)
    assert Counter(name for name, _ in given) == dict.fromkeys("abcd", 6)
    assert set(Counter((name, key[1]) for name, key in given).values()) == {1}


def test_without_an_engine_all_waits() -> None:
    scheduler = Scheduler(tasks(2, 2), [], BUDGET, concurrency=1)
    assert starts(scheduler) == []
    scheduler.join("a", 10**6)
    assert len(starts(scheduler)) == 1
    scheduler.leave("a")
    assert starts(scheduler) == [] and not scheduler.done


def test_engines_that_come_later_get_their_share() -> None:
    scheduler = Scheduler(tasks(10, 1), [], BUDGET, concurrency=64)
    scheduler.awaited = 3
    scheduler.join("a", 10**6)
    assert len(list(scheduler.assign())) == 3
    scheduler.awaited = 2
    scheduler.join("b", 10**6)
    assert Counter(name for name, _ in starts(scheduler)) == {"b": 3}
    scheduler.awaited = 0
    assert Counter(name for name, _ in starts(scheduler)) == {"a": 2, "b": 2}


def test_the_cache_bounds_what_is_in_flight() -> None:
    scheduler = Scheduler(tasks(50, 1), [], BUDGET, concurrency=64)
    scheduler.join("a", 550)  # room for five of 110 tokens
    assert len(list(scheduler.assign())) == 5 * OVERCOMMIT
    scheduler.join("b", 1)
    assert len(list(scheduler.assign())) == 1  # an engine is never idle


def engines(count: int | None, tensor_parallel: int, device: str) -> EngineSettings:
    return EngineSettings(device, count, tensor_parallel, concurrency=4)


def test_placement() -> None:
    assert placement([4, 4, 3], engines(None, 2, "cuda")) == (5, 2)
    assert placement([4, 4], engines(3, 1, "cuda")) == (3, 1)
    assert placement([8, 8], engines(None, 1, "cpu")) == (2, 8)
    assert placement([8, 4], engines(3, 1, "cpu")) == (3, 4)
    assert placement([2], engines(2, 1, "cpu")) == (2, 1)
    with pytest.raises(
        UserError, match=r"eval.engines=null with eval.tensor_parallel=4 does not fit: .* 3\+3 GPUs"
    ):
        placement([3, 3], engines(None, 4, "cuda"))
    with pytest.raises(UserError, match=r"eval\.engines=9"):
        placement([4, 4], engines(9, 1, "cuda"))
    with pytest.raises(UserError, match="set device=cpu"):
        placement([], engines(None, 1, "cuda"))


ONE, TWO = ("s", "p", 0), ("s", "p", 1)


@pytest.fixture
def beating() -> Pulse:
    """An engine that took 20 s to load and has two rollouts since second 100."""
    beating = Pulse(budget=1000)
    beating.begin("a", 0)
    beating.up("a", 20)
    for key in (ONE, TWO):
        beating.ask("a", key, 100)
    return beating


def test_an_engine_that_makes_no_token_hangs(beating: Pulse) -> None:
    limit = hang_detector.SILENCES * 20
    assert beating.hangs("a", 100 + limit) is None
    assert beating.hangs("a", 101 + limit) == "no token for 200 s"
    beating.hear("a", {ONE: 10, TWO: 0}, 150)
    assert beating.hangs("a", 101 + limit) is None
    beating.hear("a", {ONE: 10, TWO: 0}, 160)  # the same tokens are no sign of life
    assert beating.hangs("a", 151 + hang_detector.SILENCES * 50) == "no token for 500 s"
    beating.finish("a", ONE, 11, 170)
    beating.finish("a", TWO, 11, 180)
    assert beating.hangs("a", 10**6) is None  # nothing to do


def test_a_rollout_has_until_its_deadline(beating: Pulse) -> None:
    for now in range(101, 4_200):
        beating.hear("a", {ONE: now - 100}, now)  # a token a second, and none for the other
    why = beating.hangs("a", 4_200)
    assert why is None
    for now in range(4_200, 8_103):
        beating.hear("a", {ONE: now - 100}, now)
    # Two seconds of rollouts for every token: four times 1000 tokens at that pace.
    assert beating.hangs("a", 8_102) == "s/p/0 not finished after 8,000 s"


def test_a_rollout_may_wait_while_others_end(beating: Pulse) -> None:
    for now in range(101, 8_102):
        beating.hear("a", {ONE: now - 100}, now)
    beating.finish("a", ONE, 8_001, 8_102)
    beating.ask("a", ONE, 8_102)
    assert beating.hangs("a", 8_103) is None


def test_waiting_for_room_does_not_seem_to_hang() -> None:
    lengths = {key: 2 * tokens for key, tokens in decode.trace(50, 16, 0.75, 0).items()}
    (a100,) = (gpu for gpu in decode.GPUS if gpu.name == "A100-40GB")
    decode.replay(lengths, 8, a100)  # asserts it at every beat


def test_an_engine_that_does_not_come_up() -> None:
    beating = Pulse(budget=10)
    beating.begin("a", 0)
    assert beating.hangs("a", hang_detector.START_SECONDS) is None
    assert beating.hangs("a", hang_detector.START_SECONDS + 1) == "not loaded after 1,800 s"
    beating.leave("a")
    assert beating.hangs("a", 10**6) is None
