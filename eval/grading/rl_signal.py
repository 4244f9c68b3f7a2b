"""What RL could learn from a model's rollouts: how often a problem's rewards differ, how many
different answers it gets, and how certain the model is of its tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from common.records import Grade, Key, Rollout
from data_prep.answers.normalise import normalise

SIGNALS = ("mixed", "teach", "distinct")

Values = dict[tuple[str, str], float]
"""(set, problem id) -> one value for that problem."""


def per_problem(grades: Iterable[Grade]) -> dict[str, Values]:
    """Returns each of ``SIGNALS`` by name, as values by problem:

    - ``mixed``: 1 if the problem has both right and wrong rollouts, else 0;
    - ``teach``: n/(n - 1) p (1 - p), with p the share of right rollouts among its n: the unbiased
      estimate of q (1 - q), the variance of the reward if a rollout is right with probability q
      (Bessel's correction); no value for a problem with one rollout;
    - ``distinct``: the number of distinct answers of its rollouts, by the canonical spelling that
      exact match compares. A rollout without an answer adds none, so it is 0 if no rollout has one.
    """
    rows: dict[tuple[str, str], list[Grade]] = {}
    for grade in grades:
        rows.setdefault(grade.key[:2], []).append(grade)
    right = {key: sum(grade.exact for grade in row) for key, row in rows.items()}
    return {
        "mixed": {key: float(0 < right[key] < len(row)) for key, row in rows.items()},
        "teach": {
            key: right[key] * (len(row) - right[key]) / (len(row) * (len(row) - 1))
            for key, row in rows.items()
            if len(row) > 1
        },
        "distinct": {key: float(_distinct(row)) for key, row in rows.items()},
    }


def surprisal(rollouts: Collection[Rollout]) -> float | None:
    """Returns the mean of -log p over the tokens of the rollouts that have a ``mean_logprob``, in
    nats per token; None if none has.

    Its expectation is the mean entropy of the distributions that the tokens were sampled from,
    except for greedy rollouts.
    """
    logged = [(r.tokens, r.mean_logprob) for r in rollouts if r.mean_logprob is not None]
    tokens = sum(count for count, _ in logged)
    return -sum(count * mean for count, mean in logged) / tokens if tokens else None


def figures(grades: Sequence[Grade], rollouts: Mapping[Key, Rollout]) -> dict[str, Any]:
    """Returns the means of ``SIGNALS`` over the problems of ``grades`` (null if none has a value),
    ``surprisal`` of their rollouts, and under ``logged`` the number of those that have a
    ``mean_logprob``.
    """
    made = [rollouts[grade.key] for grade in grades]
    return {
        **{
            name: fmean(values.values()) if values else None
            for name, values in per_problem(grades).items()
        },
        "surprisal": surprisal(made),
        "logged": sum(rollout.mean_logprob is not None for rollout in made),
    }


def _distinct(row: Iterable[Grade]) -> int:
    spellings = {normalise(grade.extracted) for grade in row if grade.extracted is not None}
    return len(spellings - {""})
