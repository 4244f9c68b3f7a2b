"""Computes figures from grades: accuracy, length and outcome per benchmark set and over all
sets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import comb, sqrt
from pathlib import Path
from statistics import fmean
from typing import Any

from common.errors import UserError
from common.files import write_json
from common.records import ANSWERED, UNJUDGED, Grade, Key, Problem, Rollout, graders_differ
from data_prep.answers.normalise import normalise
from data_prep.benchmarks import sets as benchmarks
from eval.generation import rollout_files
from eval.grading import rl_signal
from eval.grading.repetition import identical, is_repeating

TOTAL = benchmarks.TOTAL
METRICS = "metrics.json"
PERCENTILES = (10, 25, 50, 75, 90, 99)
PUBLISHED_CAP = 16_384
"""The budget that published figures often use, in tokens."""
BUDGETS = 16
"""Number of evenly spaced budgets in ``by_budget``."""


def accuracies(n: int) -> tuple[str, str, str, str]:
    """Returns the names of the accuracies for ``n`` rollouts per problem."""
    return "pass@1", f"any@{n}", f"perfect@{n}", f"maj@{n}"


def answered(figures: Mapping[str, Any]) -> int:
    """Returns the number of rollouts that gave an answer (whose state is in ``ANSWERED``)."""
    return sum(figures["states"].get(state, 0) for state in ANSWERED)


def summarise(
    problems: Sequence[Problem],
    rollouts: Mapping[Key, Rollout],
    grades: Mapping[Key, Grade],
    n: int,
    budget: int,
    partial: bool = False,
) -> dict[str, dict[str, Any]]:
    """Returns figures per set, and under ``total`` over all problems, from ``n`` rollouts per
    problem of at most ``budget`` tokens.

    Shares are in 0..1, lengths in tokens:

    - ``pass@1`` (mean over problems of the mean over rollouts), ``any@n`` (at least one right),
      ``perfect@n`` (all right), ``maj@n`` (the most frequent extracted answer, by canonical
      spelling, is right; the first one seen wins a tie; rollouts without an answer have no vote);
      under ``macro``, in total only, their means over sets;
    - ``pass@k``: for k = 1..n, the mean over problems of :func:`pass_at_k`;
    - ``rerun_error``: standard error of pass@1 over rollouts, the problems fixed: how far another
      run on the same problems may differ; null if any problem has only one rollout;
    - ``hit_budget``: share of rollouts that the budget ended, with or without an answer;
      ``accuracy_finished`` and ``accuracy_truncated``: accuracy of rollouts that stopped, and of
      those the budget ended; null if there are none;
    - ``by_budget``: [tokens, pass@1 if longer rollouts were wrong], ascending up to ``budget``;
      includes 16,384 if ``budget`` allows;
    - ``tokens``: nearest-rank percentiles of a rollout's length, the maximum, and the mean;
    - ``repeating``: share of rollouts that end in a loop; ``identical``: number of rollouts with
      the same text as an earlier one of their problem;
    - ``states``: number of rollouts by grade state;
    - ``mixed``, ``teach``, ``distinct``, ``surprisal``, ``logged``: what RL could learn from the
      rollouts (:mod:`eval.grading.rl_signal`);
    - ``grader``: version of the grader's rules;
    - ``verified_disagrees``: number of rollouts where math-verify reached the opposite of exact
      match; ``verified_timeouts``: number that it did not judge.

    Raises UserError when there is no graded rollout, and when a rollout or a grade is missing
    unless ``partial``: then every entry has the number of missing ones as ``missing``, and means
    are over existing rollouts (pass@k: over problems with at least k rollouts).
    """
    there = {key: grade for key, grade in grades.items() if key in rollouts}
    missing = [key for p in problems for k in range(n) if (key := (p.set, p.id, k)) not in there]
    if missing and not partial:
        raise UserError(
            f"{len(missing)} of {len(problems) * n} rollouts are missing or not graded (the first "
            f"is {missing[0]}): run the same evaluation again to complete it"
        )
    if not there:
        raise UserError("there is no rollout yet")
    by_set: dict[str, list[Problem]] = {}
    for problem in problems:
        by_set.setdefault(problem.set, []).append(problem)
    copies = identical(rollouts.values())
    loops = {key for key, rollout in rollouts.items() if is_repeating(rollout.text)}
    lacking = Counter(key[0] for key in missing)
    figures = {}
    for name, members in [*by_set.items(), (TOTAL, list(problems))]:
        rows = _rows(members, there, n)
        if any(rows):
            figures[name] = _figures(members, rows, rollouts, n, budget)
            keys = [grade.key for row in rows for grade in row]
            figures[name]["repeating"] = fmean(key in loops for key in keys)
            figures[name]["identical"] = sum(key in copies for key in keys)
            figures[name] |= rl_signal.figures([g for row in rows for g in row], rollouts)
            if partial:
                figures[name]["missing"] = len(missing) if name == TOTAL else lacking[name]
    sets = [figures[name] for name in by_set if name in figures]
    figures[TOTAL]["macro"] = {name: fmean(f[name] for f in sets) for name in accuracies(n)}
    return figures


def per_problem(
    problems: Sequence[Problem], grades: Mapping[Key, Grade], n: int
) -> dict[str, dict[tuple[str, str], float]]:
    """Returns each accuracy by name, as values by (set, problem id); their mean is the accuracy of
    ``summarise``.

    A problem without a grade has no value.
    """
    rows = zip(problems, _rows(problems, grades, n), strict=True)
    scores = {(p.set, p.id): _scores(row, p.answer) for p, row in rows if row}
    return {
        name: {key: score[i] for key, score in scores.items()}
        for i, name in enumerate(accuracies(n))
    }


def pass_at_k(n: int, right: int, k: int) -> float:
    """Returns the chance that at least one of ``k`` rollouts, drawn from ``n`` with ``right`` right
    ones, is right.

    It is 1 - C(n - right, k) / C(n, k), without replacement: the unbiased estimate of pass@k (Chen
    et al., Evaluating Large Language Models Trained on Code, 2021, equation 1).
    """
    return 1 - comb(n - right, k) / comb(n, k)


@dataclass(frozen=True)
class Tally:
    """Graded rollouts of one problem."""

    right: int
    total: int


def tallies(grades: Iterable[Grade]) -> dict[tuple[str, str], Tally]:
    """Returns (set, problem id) -> tally, in the order of the grades."""
    right, total = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for grade in grades:
        total[grade.key[:2]] += 1
        right[grade.key[:2]] += grade.exact
    return {key: Tally(right[key], count) for key, count in total.items()}


def rerun_error(counts: Collection[Tally]) -> float | None:
    """Returns the standard error of pass@1 over rollouts, from each problem's tally; None if any
    problem has only one rollout.

    A problem's share of right rollouts p has the unbiased variance p (1 - p) / (n - 1); the
    variance of the mean is their sum over the squared number of problems.
    """
    if any(tally.total == 1 for tally in counts):
        return None
    variances = (t.right / t.total * (1 - t.right / t.total) / (t.total - 1) for t in counts)
    return sqrt(sum(variances)) / len(counts)


def write_metrics(folder: Path, problems: Sequence[Problem], n: int, budget: int) -> Path:
    """Writes ``folder``'s metrics.json from its rollouts and grades; returns the file's path."""
    rollouts = rollout_files.read(folder / rollout_files.ROLLOUTS)
    grades = rollout_files.read_grades(folder / rollout_files.GRADES)
    path = folder / METRICS
    write_json(path, summarise(problems, rollouts, grades, n, budget))
    return path


def _rows(problems: Iterable[Problem], grades: Mapping[Key, Grade], n: int) -> list[list[Grade]]:
    return [
        [grades[key] for k in range(n) if (key := (p.set, p.id, k)) in grades] for p in problems
    ]


def _scores(row: Sequence[Grade], gold: str) -> tuple[float, float, float, float]:
    right = sum(grade.exact for grade in row)
    return right / len(row), float(right > 0), float(right == len(row)), float(_majority(row, gold))


def _figures(
    problems: Sequence[Problem],
    rows: Sequence[Sequence[Grade]],
    rollouts: Mapping[Key, Rollout],
    n: int,
    budget: int,
) -> dict[str, Any]:
    every = [grade for row in rows for grade in row]
    made = [rollouts[grade.key] for grade in every]
    cut = [rollout.finish_reason == "length" for rollout in made]
    lengths = sorted(rollout.tokens for rollout in made)
    counts = list(tallies(every).values())
    grades = {grade.key: grade for grade in every}
    # (tokens, contribution to pass@1) of each right rollout.
    right = [
        (rollouts[g.key].tokens, 1 / len(row) / len(counts)) for row in rows for g in row if g.exact
    ]
    return {
        "problems": len(counts),
        "rollouts": len(every),
        **{
            name: fmean(values.values())
            for name, values in per_problem(problems, grades, n).items()
        },
        "pass@k": [
            _mean([pass_at_k(t.total, t.right, k) for t in counts if t.total >= k])
            for k in range(1, n + 1)
        ],
        "rerun_error": rerun_error(counts),
        "hit_budget": fmean(cut),
        "accuracy_finished": _mean(
            [g.exact for g, is_cut in zip(every, cut, strict=True) if not is_cut]
        ),
        "accuracy_truncated": _mean(
            [g.exact for g, is_cut in zip(every, cut, strict=True) if is_cut]
        ),
        "by_budget": [
            [b, sum(share for tokens, share in right if tokens <= b)] for b in _budgets(budget)
        ],
        "tokens": {
            **{f"p{percent}": _percentile(lengths, percent) for percent in PERCENTILES},
            "max": lengths[-1],
            "mean": fmean(lengths),
        },
        "states": dict(sorted(Counter(grade.state for grade in every).items())),
        "grader": every[0].grader,
        "verified_disagrees": sum(graders_differ(g.exact, g.verified) for g in every),
        "verified_timeouts": sum(g.verified == UNJUDGED for g in every),
    }


def _budgets(budget: int) -> list[int]:
    steps = {-(-budget * i // BUDGETS) for i in range(1, BUDGETS + 1)}
    return sorted(steps | ({PUBLISHED_CAP} if budget >= PUBLISHED_CAP else set()))


def _majority(grades: Iterable[Grade], gold: str) -> bool:
    # most_common keeps the order in which equal counts were first seen.
    votes = Counter(normalise(g.extracted) for g in grades if g.extracted is not None)
    return bool(votes) and votes.most_common(1)[0][0] == normalise(gold)


def _percentile(ordered: Sequence[int], percent: int) -> int:
    """Returns the percentile by nearest rank: the smallest value that at least ``percent`` % of the
    values do not exceed.
    """
    return ordered[-(-percent * len(ordered) // 100) - 1]


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
