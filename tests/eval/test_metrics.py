import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.schema import Grade, Problem, Rollout
from eval import ledger
from eval.metrics import summarise, write_metrics

ANSWERS = st.sampled_from([None, "1", "2", "02", "3"])


def table(rows: list[list[str | None]], tokens: list[int]):
    """Problems whose gold answer is 2, alternating between two sets; a row of answers each."""
    problems = [Problem(str(i), "?", "2", "ab"[i % 2]) for i in range(len(rows))]
    rollouts, grades = {}, {}
    for p, row in zip(problems, rows, strict=True):
        for k, answer in enumerate(row):
            key = (p.set, p.id, k)
            length = tokens[len(rollouts) % len(tokens)]
            finish = "length" if answer is None else "stop"
            rollouts[key] = Rollout(key, 0, "", length, finish, "e", 0.0)
            state = "truncated" if answer is None else "boxed"
            grades[key] = Grade(key, state, answer, answer in ("2", "02"), answer == "2")
    return problems, rollouts, grades


@given(st.data(), st.integers(1, 5), st.lists(st.integers(0, 50), min_size=1, max_size=9))
def test_against_brute_force(data: st.DataObject, n: int, tokens: list[int]) -> None:
    rows = data.draw(st.lists(st.lists(ANSWERS, min_size=n, max_size=n), min_size=1, max_size=6))
    problems, rollouts, grades = table(rows, tokens)
    figures = summarise(problems, rollouts, grades, n)
    assert list(figures) == ["a", "b", "total"][: 3 if len(rows) > 1 else 1] + ["total"] * (len(rows) == 1)
    for name, got in figures.items():
        mine = [row for i, row in enumerate(rows) if name in ("total", "ab"[i % 2])]
        flat = [answer for row in mine for answer in row]
        right = [[answer in ("2", "02") for answer in row] for row in mine]
        assert (got["problems"], got["rollouts"]) == (len(mine), len(flat))
        assert got["pass@1"] == pytest.approx(sum(map(sum, right)) / len(flat))
        assert got[f"any@{n}"] == pytest.approx(sum(any(row) for row in right) / len(mine))
        assert got[f"perfect@{n}"] == pytest.approx(sum(all(row) for row in right) / len(mine))
        assert got[f"maj@{n}"] == pytest.approx(sum(map(majority, mine)) / len(mine))
        assert got["hit_budget"] == pytest.approx(flat.count(None) / len(flat))
        assert sum(got["states"].values()) == len(flat)
        assert got["verified_disagrees"] == flat.count("02")
        lengths = [r.tokens for r in rollouts.values() if name in ("total", r.key[0])]
        for percent in (50, 90):
            enough = [x for x in lengths if sum(y <= x for y in lengths) >= percent / 100 * len(lengths) - 1e-9]
            assert got["tokens"][f"p{percent}"] == min(enough)
        assert got["tokens"]["max"] == max(lengths)


def majority(row: list[str | None]) -> bool:
    votes = [answer.lstrip("0") for answer in row if answer]
    best, count = None, 0
    for answer in votes:
        if votes.count(answer) > count:
            best, count = answer, votes.count(answer)
    return best == "2"


def test_the_earliest_wins_a_tie() -> None:
    for row, expected in ((["1", "2"], 0), (["2", "1"], 1), (["1", "02", "2"], 1), ([None, None], 0)):
        assert summarise(*table([row], [1]), len(row))["total"][f"maj@{len(row)}"] == expected


def test_timeouts_are_no_disagreement() -> None:
    problems, rollouts, grades = table([["2"]], [1])
    grades = {key: Grade(key, g.state, g.extracted, g.exact, "timeout") for key, g in grades.items()}
    total = summarise(problems, rollouts, grades, 1)["total"]
    assert (total["verified_disagrees"], total["verified_timeouts"]) == (0, 1)


def test_refuses_incomplete() -> None:
    problems, rollouts, grades = table([["1", "2"], ["1", "2"]], [1])
    for kind in (rollouts, grades):
        removed = kind.pop(("b", "1", 0))
        with pytest.raises(ValueError, match=r"1 of 4 rollouts .* \('b', '1', 0\)"):
            summarise(problems, rollouts, grades, 2)
        kind[removed.key] = removed
    with pytest.raises(ValueError, match=r"2 of 6 rollouts .* \('a', '0', 2\)"):
        summarise(problems, rollouts, grades, 3)


def test_writes(tmp_path: Path) -> None:
    problems, rollouts, grades = table([["2", "1"]], [10, 20])
    with (tmp_path / ledger.ROLLOUTS).open("w") as f:
        for rollout in rollouts.values():
            ledger.append(f, rollout)
    ledger.write_grades(tmp_path / ledger.GRADES, grades.values())
    total = json.loads(write_metrics(tmp_path, problems, 2).read_text())["total"]
    assert total["tokens"] == {"p50": 10, "p90": 20, "max": 20}
    assert math.isclose(total["pass@1"], 0.5)
