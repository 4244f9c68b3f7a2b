"""Figures against brute force: what the definitions say, enumerated."""

import itertools
import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from common.records import Grade, Key, Problem, Rollout
from eval.generation import rollout_files
from eval.grading import metrics
from eval.grading.metrics import PUBLISHED_CAP, pass_at_k, summarise, write_metrics
from eval.grading.repetition import COPIES, LONGEST_UNIT, SPAN, identical, is_repeating

ANSWERS = st.sampled_from([None, "1", "2", "02", "3"])
BUDGET = 50
Table = tuple[list[Problem], dict[Key, Rollout], dict[Key, Grade]]


def table(rows: list[list[str | None]], tokens: list[int]) -> Table:
    """Problems whose gold answer is 2, alternating between two sets; a row of answers each."""
    problems = [Problem(str(i // 2), "?", "2", "ab"[i % 2]) for i in range(len(rows))]
    rollouts, grades = {}, {}
    for p, row in zip(problems, rows, strict=True):
        for k, answer in enumerate(row):
            key = (p.set, p.id, k)
            length = tokens[len(rollouts) % len(tokens)]
            finish = "length" if answer is None else "stop"
            rollouts[key] = Rollout(key, 0, f"{k % 3}", length, finish, "e", 0.0)
            state = "truncated" if answer is None else "boxed"
            grades[key] = Grade(key, state, answer, answer in ("2", "02"), answer == "2")
    return problems, rollouts, grades


def check(rows: list[list[str | None]], tokens: list[int]) -> None:
    """Every figure of the table against its definition."""
    n = len(rows[0])
    problems, rollouts, grades = table(rows, tokens)
    figures = summarise(problems, rollouts, grades, n, BUDGET)
    assert list(figures) == ["a", "b", "total"][: 3 if len(rows) > 1 else 1] + ["total"] * (
        len(rows) == 1
    )
    for name, got in figures.items():
        mine = [row for i, row in enumerate(rows) if name in ("total", "ab"[i % 2])]
        flat = [answer for row in mine for answer in row]
        right = [[answer in ("2", "02") for answer in row] for row in mine]
        assert (got["problems"], got["rollouts"]) == (len(mine), len(flat))
        assert got["pass@1"] == pytest.approx(sum(map(sum, right)) / len(flat))
        assert got[f"any@{n}"] == pytest.approx(sum(any(row) for row in right) / len(mine))
        assert got[f"perfect@{n}"] == pytest.approx(sum(all(row) for row in right) / len(mine))
        assert got[f"maj@{n}"] == pytest.approx(sum(map(majority, mine)) / len(mine))
        for k in range(1, n + 1):
            chosen = [[any(some) for some in itertools.combinations(row, k)] for row in right]
            assert got["pass@k"][k - 1] == pytest.approx(
                statistics.fmean(map(statistics.fmean, chosen))
            )
        if n > 1:
            variances = [statistics.variance(map(float, row)) / n for row in right]
            assert got["rerun_error"] == pytest.approx(math.sqrt(sum(variances)) / len(mine))
        assert (got["rerun_error"] is None) == (n == 1)
        assert got["hit_budget"] == pytest.approx(flat.count(None) / len(flat))
        finished = [answer in ("2", "02") for answer in flat if answer is not None]
        assert got["accuracy_finished"] == (
            pytest.approx(statistics.fmean(finished)) if finished else None
        )
        assert got["accuracy_truncated"] == (0 if None in flat else None)
        assert sum(got["states"].values()) == len(flat)
        assert got["verified_disagrees"] == flat.count("02")
        lengths = [r.tokens for r in rollouts.values() if name in ("total", r.key[0])]
        for percent in (10, 25, 50, 75, 90, 99):
            enough = [
                x
                for x in lengths
                if sum(y <= x for y in lengths) >= percent / 100 * len(lengths) - 1e-9
            ]
            assert got["tokens"][f"p{percent}"] == min(enough)
        assert got["tokens"]["max"] == max(lengths)
        assert got["tokens"]["mean"] == pytest.approx(statistics.fmean(lengths))
        every = [answer in ("2", "02") for row in mine for answer in row]
        for budget, accuracy in got["by_budget"]:
            within = sum(r and length <= budget for r, length in zip(every, lengths, strict=True))
            assert accuracy == pytest.approx(within / len(flat))
        assert got["by_budget"][-1] == [BUDGET, pytest.approx(got["pass@1"])]
        assert got["identical"] == len(mine) * max(0, n - 3) and got["repeating"] == 0
    names = [name for name in figures if name != "total"]
    for accuracy, value in figures["total"]["macro"].items():
        assert value == pytest.approx(statistics.fmean(figures[name][accuracy] for name in names))
    assert len(figures["total"]["macro"]) == 4


@settings(deadline=None)
@given(st.data(), st.integers(1, 5), st.lists(st.integers(0, BUDGET), min_size=1, max_size=9))
def test_against_brute_force(data: st.DataObject, n: int, tokens: list[int]) -> None:
    check(
        data.draw(st.lists(st.lists(ANSWERS, min_size=n, max_size=n), min_size=1, max_size=6)),
        tokens,
    )


def biased(n: int, right: int, k: int) -> float:
    return 1 - (1 - right / n) ** k


def population(counts: list[metrics.Tally]) -> float:
    variances = (t.right / t.total * (1 - t.right / t.total) / t.total for t in counts)
    return math.sqrt(sum(variances)) / len(counts)


def last_of_equals(row: list[Grade], gold: str) -> bool:
    return majority([grade.extracted for grade in reversed(row)])


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("pass_at_k", biased),
        ("rerun_error", population),
        ("_majority", last_of_equals),
        ("_percentile", lambda ordered, percent: ordered[percent * len(ordered) // 100]),
        ("_budgets", lambda budget: [budget // 2, budget - 1]),
    ],
)
def test_a_wrong_estimator_is_caught(
    monkeypatch: pytest.MonkeyPatch, name: str, broken: Callable[..., Any]
) -> None:
    rows = [
        ["1", "2", "2", "1"],
        ["2", None, "1", "3"],
        ["02", "2", "2", "2"],
        ["1", "1", "3", "2"],
    ]
    check(rows, [3, 50, 20, 31, 7])
    monkeypatch.setattr(metrics, name, broken)
    with pytest.raises(AssertionError):
        check(rows, [3, 50, 20, 31, 7])


@pytest.mark.parametrize("p", [0.03, 0.4])
def test_pass_at_k_is_unbiased_and_the_plain_formula_is_not(p: float) -> None:
    n, k = 16, 8
    weights = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    mean = {f: sum(w * f(n, c, k) for c, w in enumerate(weights)) for f in (pass_at_k, biased)}
    assert mean[pass_at_k] == pytest.approx(1 - (1 - p) ** k)
    assert mean[biased] != pytest.approx(1 - (1 - p) ** k, abs=0.001)


def majority(row: list[str | None]) -> bool:
    votes = [answer.lstrip("0") for answer in row if answer]
    best, count = None, 0
    for answer in votes:
        if votes.count(answer) > count:
            best, count = answer, votes.count(answer)
    return best == "2"


def test_the_earliest_wins_a_tie() -> None:
    for row, expected in (
        (["1", "2"], 0),
        (["2", "1"], 1),
        (["1", "02", "2"], 1),
        ([None, None], 0),
    ):
        assert (
            summarise(*table([row], [1]), len(row), BUDGET)["total"][f"maj@{len(row)}"] == expected
        )


def test_timeouts_are_no_disagreement() -> None:
    problems, rollouts, grades = table([["2"]], [1])
    grades = {
        key: Grade(key, g.state, g.extracted, g.exact, "timeout") for key, g in grades.items()
    }
    total = summarise(problems, rollouts, grades, 1, BUDGET)["total"]
    assert (total["verified_disagrees"], total["verified_timeouts"]) == (0, 1)


def test_refuses_incomplete() -> None:
    problems, rollouts, grades = table([["1", "2"], ["1", "2"]], [1])
    for kind in (rollouts, grades):
        removed = kind.pop(("b", "0", 0))
        with pytest.raises(UserError, match=r"1 of 4 rollouts .* \('b', '0', 0\)"):
            summarise(problems, rollouts, grades, 2, BUDGET)
        kind[removed.key] = removed
    with pytest.raises(UserError, match=r"2 of 6 rollouts .* \('a', '0', 2\)"):
        summarise(problems, rollouts, grades, 3, BUDGET)


def test_a_partial_view_says_what_is_missing() -> None:
    problems, rollouts, grades = table([["2", "1"], ["2", "2"], ["1", "2"], ["1", "1"]], [1])
    for key in (("a", "0", 1), ("b", "0", 0), ("b", "0", 1)):
        del rollouts[key]
    del grades["a", "1", 0]
    figures = summarise(problems, rollouts, grades, 2, BUDGET, partial=True)
    assert {name: f["missing"] for name, f in figures.items()} == {"a": 2, "b": 2, "total": 4}
    assert [figures[name]["problems"] for name in figures] == [2, 1, 3]
    assert (
        figures["a"]["pass@1"] == 1
        and figures["a"]["pass@k"] == [1, None]
        and figures["a"]["rerun_error"] is None
    )
    assert (
        figures["total"]["pass@1"] == pytest.approx(2 / 3)
        and figures["total"]["macro"]["pass@1"] == 0.5
    )
    only_a = {key: grade for key, grade in grades.items() if key[0] == "a"}
    assert list(summarise(problems, rollouts, only_a, 2, BUDGET, partial=True)) == ["a", "total"]
    assert summarise(problems, rollouts, grades, 1, BUDGET, partial=True)["total"]["missing"] == 2
    with pytest.raises(UserError, match="no rollout yet"):
        summarise(problems, {}, {}, 2, BUDGET, partial=True)


def test_the_published_cap_is_among_the_budgets() -> None:
    problems, rollouts, grades = table([["2", "2"]], [PUBLISHED_CAP, PUBLISHED_CAP + 1])
    for budget in (32_768, 20_000, PUBLISHED_CAP):
        curve = summarise(problems, rollouts, grades, 2, budget)["total"]["by_budget"]
        assert dict(curve)[PUBLISHED_CAP] == 0.5 and [b for b, _ in curve] == sorted(
            {b for b, _ in curve}
        )
        assert curve[-1][0] == budget
    assert PUBLISHED_CAP not in dict(
        summarise(problems, rollouts, grades, 2, 8_000)["total"]["by_budget"]
    )


@pytest.mark.parametrize(
    "unit", ["a", "so ", "Wait, let me check that again.\n", "x" * 30 + "y" * 1_200 + "z"]
)
def test_a_text_that_ends_in_a_loop(unit: str) -> None:
    copies = max(COPIES, -(-SPAN // len(unit)))
    looping = "First, some thought. " + unit * copies
    assert is_repeating(looping) and is_repeating(looping + unit[: len(unit) // 2])
    assert is_repeating("b" * 100_000 + unit * copies)
    assert not is_repeating(looping + " So the answer is \\boxed{2}.")
    assert not is_repeating("First, some thought. " + unit * (COPIES - 1))


def test_a_text_that_goes_on_is_no_loop() -> None:
    counted = " ".join(map(str, range(10_000)))
    assert not any(map(is_repeating, ("", "2", "ab" * 20, counted, "a" * (SPAN - 1))))
    assert not is_repeating(f"{'ab' * LONGEST_UNIT}c" * COPIES)


def test_the_same_words_twice_are_counted_by_problem() -> None:
    said = {
        ("a", "0", 0): "x",
        ("a", "0", 1): "y",
        ("a", "0", 2): "x",
        ("a", "1", 0): "x",
        ("b", "0", 0): "x",
    }
    rollouts = [Rollout(key, 0, text, 1, "stop", "e", 0.0) for key, text in reversed(said.items())]
    assert identical(rollouts) == {("a", "0", 2)}


def test_writes(tmp_path: Path) -> None:
    problems, rollouts, grades = table([["2", "1"]], [10, 20])
    with (tmp_path / rollout_files.ROLLOUTS).open("w") as f:
        for rollout in rollouts.values():
            rollout_files.append(f, rollout)
    rollout_files.write_grades(tmp_path / rollout_files.GRADES, grades.values())
    total = json.loads(write_metrics(tmp_path, problems, 2, BUDGET).read_text())["total"]
    assert total["tokens"]["p50"] == 10 and total["tokens"]["max"] == 20
    assert math.isclose(total["pass@1"], 0.5)
