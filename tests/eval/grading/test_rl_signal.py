"""Figures of RL's signal against enumeration."""

import itertools
import math
import random

import pytest

from common.records import Grade, Rollout
from eval.grading.rl_signal import SIGNALS, figures, per_problem, surprisal

GOLD = "2"


def row(problem: str, answers: list[str | None]) -> list[Grade]:
    return [
        Grade(("s", problem, k), "boxed" if answer else "truncated", answer, answer == GOLD, False)
        for k, answer in enumerate(answers)
    ]


def rewards(right: tuple[bool, ...]) -> list[Grade]:
    return row("p", [GOLD if is_right else "1" for is_right in right])


@pytest.mark.parametrize("n", [2, 3, 6])
@pytest.mark.parametrize("q", [0.0, 0.1, 0.5, 0.8, 1.0])
def test_teach_has_the_variance_of_the_reward_as_its_expectation(n: int, q: float) -> None:
    """Over every outcome of n rollouts, each right with probability q."""
    expected = biased = 0.0
    for right in itertools.product((False, True), repeat=n):
        chance = math.prod(q if is_right else 1 - q for is_right in right)
        share = sum(right) / n
        (value,) = per_problem(rewards(right))["teach"].values()
        assert value == pytest.approx(n / (n - 1) * share * (1 - share))
        expected += chance * value
        biased += chance * share * (1 - share)
    assert expected == pytest.approx(q * (1 - q))
    assert q in (0, 1) or biased < q * (1 - q)


def test_mixed_and_distinct() -> None:
    grades = [
        *row("mixed", [GOLD, "1", None, "1"]),
        *row("right", [GOLD, GOLD, GOLD, GOLD]),
        *row("wrong", ["1", "3", "4", "5"]),
        *row("silent", [None, None, None, None]),
        *row("spelt", ["\\frac12", "\\dfrac{1}{2}", "$\\frac{1}{2}$", "1/3"]),
    ]
    random.Random(0).shuffle(grades)
    found = per_problem(grades)
    names = ("mixed", "right", "wrong", "silent", "spelt")
    assert [found["mixed"]["s", name] for name in names] == [1, 0, 0, 0, 0]
    assert [found["distinct"]["s", name] for name in names] == [2, 1, 4, 0, 2]
    assert list(found) == list(SIGNALS)


def test_one_rollout_tells_no_variance() -> None:
    found = per_problem(row("one", [GOLD]))
    assert found["teach"] == {} and found["mixed"] == {("s", "one"): 0}
    assert figures(row("one", [GOLD]), {("s", "one", 0): rollout(0, None, 3)})["teach"] is None


def rollout(k: int, mean: float | None, tokens: int) -> Rollout:
    return Rollout(("s", "one", k), 0, "", tokens, "stop", "e", 0.0, mean)


def test_surprisal_is_of_all_tokens_that_have_one() -> None:
    logprobs = [[-0.5, -1.5], [-3.0], [-0.25, -0.25, -0.5, -1.0]]
    rollouts = [rollout(k, sum(of) / len(of), len(of)) for k, of in enumerate(logprobs)]
    tokens = [x for of in logprobs for x in of]
    assert surprisal(rollouts) == pytest.approx(-sum(tokens) / len(tokens))
    older = [*rollouts, rollout(3, None, 1_000)]
    assert surprisal(older) == surprisal(rollouts) and surprisal(older[3:]) is None
    grades = row("one", [GOLD, GOLD, "1", "1"])
    found = figures(grades, {r.key: r for r in older})
    assert found == {
        "mixed": 1,
        "teach": pytest.approx(1 / 3),
        "distinct": 2,
        "surprisal": surprisal(rollouts),
        "logged": 3,
    }
