"""Grades to figures: the accuracy, length and outcome of each benchmark set and of all together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from math import comb, sqrt
from pathlib import Path
from statistics import fmean
from typing import Any

from common.errors import UserError
from common.files import write_json
from common.records import ANSWERED, UNJUDGED, Grade, Key, Problem, Rollout, graders_differ
from data_prep.answers.boxed import normalise
from data_prep.benchmarks import sets as benchmarks
from eval.generation import rollout_files
from eval.grading.repetition import identical, is_repeating

TOTAL = benchmarks.TOTAL
METRICS = "metrics.json"
PERCENTILES = (10, 25, 50, 75, 90, 99)
PUBLISHED_CAP = 16_384
"""Tokens: the budget at which others publish."""
BUDGETS = 16
"""Even steps of the accuracy against the budget."""


def accuracies(n: int) -> tuple[str, str, str, str]:
    """The names of the accuracies of ``n`` rollouts a problem."""
    return "pass@1", f"any@{n}", f"perfect@{n}", f"maj@{n}"


def answered(figures: Mapping[str, Any]) -> int:
    """Rollouts that gave an answer where it belongs."""
    return sum(figures["states"].get(state, 0) for state in ANSWERED)


def summarise(
    problems: Sequence[Problem],
    rollouts: Mapping[Key, Rollout],
    grades: Mapping[Key, Grade],
    n: int,
    budget: int,
    partial: bool = False,
) -> dict[str, dict[str, Any]]:
    """Figures by set, and under ``total`` over all problems, from ``n`` rollouts a problem of ``budget`` tokens.

    Shares are in 0..1, lengths in tokens:

    - ``pass@1`` (mean over problems of the mean over rollouts), ``any@n`` (at least one right), ``perfect@n``
      (all right), ``maj@n`` (the most frequent extracted answer, by canonical spelling, is right; of equals the
      one seen first; rollouts without an answer have no vote); under ``macro``, in total only, their means over sets;
    - ``pass@k``: for k = 1..n, the mean over problems of :func:`pass_at_k`;
    - ``rerun_error``: standard error of pass@1 over rollouts, the problems fixed: how far another run of the same
      problems may come out. null for one rollout a problem, which shows none;
    - ``hit_budget``: ended by the budget, with or without an answer; ``accuracy_finished`` and
      ``accuracy_truncated``: right ones among the rollouts that stopped and among those, null where there is none;
    - ``by_budget``: [tokens, pass@1 if longer rollouts were wrong], ascending, up to ``budget``, 16,384 among them;
    - ``tokens``: nearest-rank percentiles of a rollout's length, the longest, and the mean;
    - ``repeating`` and ``identical``: rollouts that end in a loop (a share), and that say what an earlier one of
      their problem says (a number);
    - ``verified_disagrees``: rollouts where math-verify reached the opposite of the headline,
      ``verified_timeouts`` those it did not judge.

    Raises UserError while a rollout or a grade is missing, unless ``partial``: then every entry has their number
    as ``missing``; its means are over what is there, those of pass@k over problems with k rollouts.
    """
    there = {key: grade for key, grade in grades.items() if key in rollouts}
    missing = [key for p in problems for k in range(n) if (key := (p.set, p.id, k)) not in there]
    if missing and not partial:
        raise UserError(
            f"{len(missing)} of {len(problems) * n} rollouts are missing or not graded, the first "
            f"{missing[0]}: run the same evaluation again to complete it"
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
            if partial:
                figures[name]["missing"] = len(missing) if name == TOTAL else lacking[name]
    sets = [figures[name] for name in by_set if name in figures]
    figures[TOTAL]["macro"] = {name: fmean(f[name] for f in sets) for name in accuracies(n)}
    return figures


def per_problem(
    problems: Sequence[Problem], grades: Mapping[Key, Grade], n: int
) -> dict[str, dict[tuple[str, str], float]]:
    """Each accuracy of ``summarise``, which is the mean of these values, by (set, problem id).

    A problem without a grade has no value.
    """
    rows = zip(problems, _rows(problems, grades, n), strict=True)
    scores = {(p.set, p.id): _scores(row, p.answer) for p, row in rows if row}
    return {name: {key: score[i] for key, score in scores.items()} for i, name in enumerate(accuracies(n))}


def pass_at_k(n: int, right: int, k: int) -> float:
    """Chance that one of ``k`` rollouts drawn without replacement from ``n``, ``right`` of them right, is right.

    1 - C(n - right, k) / C(n, k): the unbiased estimate of pass@k (Chen et al., Evaluating Large Language Models
    Trained on Code, 2021, equation 1).
    """
    return 1 - comb(n - right, k) / comb(n, k)


def outcomes(grades: Iterable[Grade]) -> dict[tuple[str, str], tuple[int, int]]:
    """(set, problem id) -> its rollouts, and the right ones among them."""
    counts: dict[tuple[str, str], tuple[int, int]] = {}
    for grade in grades:
        made, right = counts.get(grade.key[:2], (0, 0))
        counts[grade.key[:2]] = made + 1, right + grade.exact
    return counts


def rerun_error(counts: Collection[tuple[int, int]]) -> float | None:
    """Standard error of pass@1 over rollouts, from (rollouts, right ones) of each problem; None where one has one.

    A problem's share of right rollouts p has the unbiased variance p (1 - p) / (n - 1); the mean's is their sum
    over the squared number of problems.
    """
    if any(n == 1 for n, _ in counts):
        return None
    return sqrt(sum(c / n * (1 - c / n) / (n - 1) for n, c in counts)) / len(counts)


def write_metrics(folder: Path, problems: Sequence[Problem], n: int, budget: int) -> Path:
    """Writes ``folder``'s metrics.json from its rollouts and grades, and returns its path."""
    rollouts = rollout_files.read(folder / rollout_files.ROLLOUTS)
    grades = rollout_files.read_grades(folder / rollout_files.GRADES)
    path = folder / METRICS
    write_json(path, summarise(problems, rollouts, grades, n, budget))
    return path


def _rows(problems: Iterable[Problem], grades: Mapping[Key, Grade], n: int) -> list[list[Grade]]:
    return [[grades[key] for k in range(n) if (key := (p.set, p.id, k)) in grades] for p in problems]


def _scores(row: Sequence[Grade], gold: str) -> tuple[float, float, float, float]:
    right = sum(grade.exact for grade in row)
    return right / len(row), float(right > 0), float(right == len(row)), float(_majority(row, gold))


def _figures(
    problems: Sequence[Problem], rows: Sequence[Sequence[Grade]], rollouts: Mapping[Key, Rollout], n: int, budget: int
) -> dict[str, Any]:
    every = [grade for row in rows for grade in row]
    made = [rollouts[grade.key] for grade in every]
    cut = [rollout.finish_reason == "length" for rollout in made]
    lengths = sorted(rollout.tokens for rollout in made)
    counts = list(outcomes(every).values())
    grades = {grade.key: grade for grade in every}
    # A rollout's share in pass@1, where it is right.
    right = [(rollouts[g.key].tokens, 1 / len(row) / len(counts)) for row in rows for g in row if g.exact]
    return {
        "problems": len(counts),
        "rollouts": len(every),
        **{name: fmean(values.values()) for name, values in per_problem(problems, grades, n).items()},
        "pass@k": [_mean([pass_at_k(m, c, k) for m, c in counts if m >= k]) for k in range(1, n + 1)],
        "rerun_error": rerun_error(counts),
        "hit_budget": fmean(cut),
        "accuracy_finished": _mean([g.exact for g, is_cut in zip(every, cut, strict=True) if not is_cut]),
        "accuracy_truncated": _mean([g.exact for g, is_cut in zip(every, cut, strict=True) if is_cut]),
        "by_budget": [[b, sum(share for tokens, share in right if tokens <= b)] for b in _budgets(budget)],
        "tokens": {
            **{f"p{percent}": _percentile(lengths, percent) for percent in PERCENTILES},
            "max": lengths[-1],
            "mean": fmean(lengths),
        },
        "states": dict(sorted(Counter(grade.state for grade in every).items())),
        "verified_disagrees": sum(graders_differ(g.exact, g.verified) for g in every),
        "verified_timeouts": sum(g.verified == UNJUDGED for g in every),
    }


def _budgets(budget: int) -> list[int]:
    steps = {-(-budget * i // BUDGETS) for i in range(1, BUDGETS + 1)}
    return sorted(steps | ({PUBLISHED_CAP} if budget >= PUBLISHED_CAP else set()))


def _majority(grades: Iterable[Grade], gold: str) -> bool:
    # most_common keeps the order of first sight among equals.
    votes = Counter(normalise(g.extracted) for g in grades if g.extracted is not None)
    return bool(votes) and votes.most_common(1)[0][0] == normalise(gold)


def _percentile(ordered: Sequence[int], percent: int) -> int:
    """Nearest rank: the smallest value that at least ``percent`` % of the values do not exceed."""
    return ordered[-(-percent * len(ordered) // 100) - 1]


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
