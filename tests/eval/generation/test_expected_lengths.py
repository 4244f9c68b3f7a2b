"""Expected lengths with a prior, and the scheduler that has one; no engine, no clock."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.generation.expected_lengths import RATIO_WEIGHT, ExpectedLengths, ProblemKey
from eval.generation.scheduler import Scheduler
from tests.bench import decode
from tests.eval.generation.test_scheduler import BUDGET, run, tasks

PROBLEMS = [("s", str(p)) for p in range(6)]
Rollout = tuple[ProblemKey, int, bool]
"""Problem, tokens so far, whether it ended."""


def directly(problem: ProblemKey, rollouts: list[Rollout], prior: dict[ProblemKey, float]) -> float:
    """From the whole list, by appending the pseudo-observations to it."""
    if problem in prior:
        scaled = [(tokens / prior[of], end) for of, tokens, end in rollouts if of in prior]
        scaled += [(1.0, True)] * RATIO_WEIGHT
        before = sum(x for x, _ in scaled) / sum(end for _, end in scaled) * prior[problem]
    else:
        every = [*((tokens, end) for _, tokens, end in rollouts), (BUDGET, True)]
        before = sum(x for x, _ in every) / sum(end for _, end in every)
    own = [(tokens, end) for of, tokens, end in rollouts if of == problem]
    own.append((min(BUDGET, before), True))
    return min(BUDGET, sum(x for x, _ in own) / sum(end for _, end in own))


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), known=st.integers(0, len(PROBLEMS)))
def test_it_is_the_mean_with_the_pseudo_observations(seed: int, known: int) -> None:
    rng = random.Random(seed)
    prior = {problem: rng.uniform(1, BUDGET) for problem in PROBLEMS[:known]}
    lengths = ExpectedLengths(PROBLEMS, BUDGET, prior | {("s", "not asked"): 7.0})
    rollouts: list[Rollout] = []
    for _ in range(rng.randrange(40)):
        problem, tokens, end = rng.choice(PROBLEMS), rng.randint(1, BUDGET), rng.random() < 0.6
        rollouts.append((problem, tokens, end))
        first = rng.randint(0, tokens)
        lengths.count(problem, first)
        lengths.count(problem, tokens - first, end)
    found = lengths.by_problem
    assert found == pytest.approx({p: directly(p, rollouts, prior) for p in PROBLEMS})


@pytest.mark.parametrize("factor", [0.2, 1.5])
def test_the_ratio_to_the_prior_is_learned(factor: float) -> None:
    """Exponential lengths of most problems tell those of one that has not begun."""
    rng = random.Random(0)
    prior = {("s", str(p)): rng.uniform(50, 500) for p in range(200)}
    lengths = ExpectedLengths(prior, 10**6, prior)
    assert lengths.by_problem == pytest.approx(prior)
    *begun, last = prior
    for problem in begun:
        for _ in range(8):
            length = rng.expovariate(1 / (factor * prior[problem]))
            seen = rng.uniform(0, 2 * prior[problem])  # running still if it is longer
            lengths.count(problem, round(1_000 * min(length, seen)) // 1_000, length < seen)
    assert lengths.by_problem[last] == pytest.approx(factor * prior[last], rel=0.1)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    problems=st.integers(1, 8),
    n=st.integers(1, 6),
    deaths=st.integers(0, 12),
    scale=st.sampled_from([0.0, 0.2, 1.0, 5.0]),
)
def test_with_any_prior_every_rollout_comes_once_however_engines_die(
    seed: int, problems: int, n: int, deaths: int, scale: float
) -> None:
    rng, todo = random.Random(seed), tasks(problems, n)
    lengths = {key: rng.randint(1, BUDGET) for key in todo}
    poison = frozenset(key for key in todo if rng.random() < 0.05)
    prior = {key[:2]: scale * rng.randint(1, BUDGET) for key in todo if rng.random() < 0.7}
    scheduler = Scheduler(todo, [], BUDGET, rng.randint(1, 20), prior)
    finished = run(scheduler, lengths, rng, deaths, poison)
    assert set(finished.values()) <= {1}
    assert sorted([*finished, *scheduler.set_aside]) == sorted(todo)
    assert poison <= set(scheduler.set_aside)


def test_the_longest_of_another_checkpoint_start_first_and_spread_over_engines() -> None:
    prior = {("s", str(p)): 10.0 * (p + 1) for p in range(6)}
    scheduler = Scheduler(tasks(6, 2), [], BUDGET, 8, prior)
    for name in "ab":
        scheduler.join(name, 10**6)
    given = [(name, key[1]) for name, key, _ in scheduler.assign()]
    assert [problem for _, problem in given] == [p for p in "543210" for _ in range(2)]
    assert all(given[i][0] != given[i + 1][0] for i in range(0, 12, 2))


def test_a_problem_with_a_prior_needs_no_pilot() -> None:
    todo = tasks(3, 2)
    prior = {("s", "0"): 90.0, ("s", "1"): 10.0}
    scheduler = Scheduler(todo, [], BUDGET, 2, prior)
    scheduler.join("a", 10**6)
    assert [key for _, key, _ in scheduler.assign()] == [("s", "2", 0), ("s", "2", 1)]
    scheduler = Scheduler(todo, [], BUDGET, 2, prior | {("s", "2"): 50.0})
    scheduler.join("a", 10**6)
    assert [key for _, key, _ in scheduler.assign()] == [("s", "0", 0), ("s", "0", 1)]


def makespan_with_prior(correlation: float, alike: float, shuffle: bool) -> float:
    """Total seconds of 64 engines, as a multiple of those without a prior. ``correlation`` is that
    of two rollouts of a problem, ``alike`` that of a problem under two checkpoints.
    """
    (gpu,) = (gpu for gpu in decode.GPUS if gpu.name == "H100-80GB")
    seconds = [0.0, 0.0]
    for seed in range(2_000, 2_004):
        lengths = decode.trace(100, 16, correlation, seed)
        prior = decode.other_checkpoint(100, 16, correlation, seed, alike)
        if shuffle:
            means = list(prior.values())
            random.Random(seed).shuffle(means)
            prior = dict(zip(prior, means, strict=True))
        for i, known in enumerate((None, prior)):
            seconds[i] += decode.replay(lengths, 64, gpu, known)
    return seconds[1] / seconds[0]


def test_where_lengths_are_the_problems_a_prior_saves_time() -> None:
    assert makespan_with_prior(0.97, alike=0.95, shuffle=False) < 0.98


def test_the_lengths_of_other_problems_cost_little() -> None:
    assert makespan_with_prior(0.75, alike=0.65, shuffle=True) < 1.10
