"""How large an evaluation must be to find a significant difference between two candidates, and its
cost.
"""

from __future__ import annotations

from math import ceil, isfinite

from eval.choice.candidates import Candidate
from eval.choice.rule import Choice

POWER = 0.8
NORMAL = 0.8416
"""The standard normal distribution's quantile at ``POWER``."""
UNITS = {"cuda": "GPU-hours", "cpu": "CPU process-hours"}


def problems_needed(choice: Choice[Candidate], candidate: Candidate) -> int | None:
    """Returns how many problems of the same kind, in the same mix of sets, would make the
    difference between a candidate and the best one significant with power ``POWER``, if the
    observed difference is the true one; None if the difference is 0 or has no spread.

    It is N ((c + z) s / d)^2 for N problems, their difference d with standard error s, the
    corrected test's critical value c and z the normal quantile at ``POWER`` (Miller, Adding Error
    Bars to Evals, 2024, section 5, with c for the uncorrected quantile).
    """
    pair, critical = choice.behind(candidate), choice.tests.critical
    if not pair.mean or not pair.error or critical is None or not isfinite(critical):
        return None
    problems = len(candidate.evaluation.problems)
    return ceil(problems * ((critical + NORMAL) * pair.error / pair.mean) ** 2)


def cost(choice: Choice[Candidate], candidate: Candidate, problems: int) -> str:
    """Returns the device-hours of evaluating both on the additional problems up to that number,
    from the measured time of their rollouts.
    """
    timed = [c.evaluation.device_seconds for c in (choice.best, candidate)]
    known = [of for of in timed if of is not None]
    if len(known) < 2 or known[0][0] != known[1][0]:
        return "not timed"
    evaluation = candidate.evaluation
    rollouts = max(0, problems - len(evaluation.problems)) * evaluation.n
    hours = rollouts * sum(seconds for _, seconds in known) / 3600
    return (
        f"{hours:,.1f} {UNITS[known[0][0]]}" if hours >= 10 else f"{hours:.2g} {UNITS[known[0][0]]}"
    )
