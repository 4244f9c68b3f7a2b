"""Grades to figures: the accuracy, length and outcome of each benchmark set and of all together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from data_prep.answers import normalise
from data_prep.files import write_json
from data_prep.schema import Grade, Key, Problem, Rollout
from eval import ledger

TOTAL = "total"
METRICS = "metrics.json"


def summarise(
    problems: Sequence[Problem], rollouts: Mapping[Key, Rollout], grades: Mapping[Key, Grade], n: int
) -> dict[str, dict[str, Any]]:
    """Figures by set, and under ``total`` over all problems, from ``n`` rollouts a problem.

    Shares are in 0..1: ``pass@1`` (mean over problems of the mean over rollouts), ``any@n`` (at least one
    right), ``perfect@n`` (all right), ``maj@n`` (the most frequent extracted answer, by canonical spelling,
    is right; of equals the one seen first; rollouts without an answer have no vote) and ``hit_budget``
    (ended by the budget, with or without an answer).
    ``tokens`` are nearest-rank percentiles of a rollout's length. ``verified_disagrees`` counts rollouts
    where math-verify reached the opposite of the headline, ``verified_timeouts`` those it did not judge.

    Raises ValueError while a rollout or a grade is missing.
    """
    missing = [
        (p.set, p.id, k)
        for p in problems
        for k in range(n)
        if (p.set, p.id, k) not in rollouts or (p.set, p.id, k) not in grades
    ]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(problems) * n} rollouts are missing or not graded, the first "
            f"{missing[0]}: run the same evaluation again to complete it"
        )
    by_set: dict[str, list[Problem]] = {}
    for problem in problems:
        by_set.setdefault(problem.set, []).append(problem)
    return {
        name: _figures(members, rollouts, grades, n) for name, members in [*by_set.items(), (TOTAL, list(problems))]
    }


def per_problem(problems: Sequence[Problem], grades: Mapping[Key, Grade], n: int) -> dict[str, list[float]]:
    """Each accuracy of ``summarise``, which is the mean of these values, for each of ``problems`` in order."""
    rows = [[grades[p.set, p.id, k] for k in range(n)] for p in problems]
    right = [sum(grade.exact for grade in row) for row in rows]
    return {
        "pass@1": [r / n for r in right],
        f"any@{n}": [float(r > 0) for r in right],
        f"perfect@{n}": [float(r == n) for r in right],
        f"maj@{n}": [float(_majority(row, p.answer)) for row, p in zip(rows, problems, strict=True)],
    }


def write_metrics(folder: Path, problems: Sequence[Problem], n: int) -> Path:
    """Writes ``folder``'s metrics.json from its rollouts and grades, and returns its path."""
    rollouts = ledger.read(folder / ledger.ROLLOUTS)
    grades = ledger.read_grades(folder / ledger.GRADES)
    path = folder / METRICS
    write_json(path, summarise(problems, rollouts, grades, n))
    return path


def _figures(
    problems: Sequence[Problem], rollouts: Mapping[Key, Rollout], grades: Mapping[Key, Grade], n: int
) -> dict[str, Any]:
    every = [grades[p.set, p.id, k] for p in problems for k in range(n)]
    lengths = sorted(rollouts[grade.key].tokens for grade in every)
    states = Counter(grade.state for grade in every)
    return {
        "problems": len(problems),
        "rollouts": len(every),
        **{name: fmean(values) for name, values in per_problem(problems, grades, n).items()},
        "hit_budget": fmean(rollouts[grade.key].finish_reason == "length" for grade in every),
        "tokens": {
            "p50": _percentile(lengths, 50),
            "p90": _percentile(lengths, 90),
            "max": lengths[-1],
        },
        "states": dict(sorted(states.items())),
        "verified_disagrees": sum(g.verified != g.exact for g in every if isinstance(g.verified, bool)),
        "verified_timeouts": sum(g.verified == "timeout" for g in every),
    }


def _majority(grades: Iterable[Grade], gold: str) -> bool:
    # most_common keeps the order of first sight among equals.
    votes = Counter(normalise(g.extracted) for g in grades if g.extracted is not None)
    return bool(votes) and votes.most_common(1)[0][0] == normalise(gold)


def _percentile(ordered: Sequence[int], percent: int) -> int:
    """Nearest rank: the smallest value that at least ``percent`` % of the values do not exceed."""
    return ordered[-(-percent * len(ordered) // 100) - 1]
