"""The figures of candidates side by side, each over all problems with its interval, and those of
training at their steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

from common.records import ANSWERED
from common.text import markdown_table
from eval.choice.candidates import Candidate
from eval.grading.intervals import Sets, variance_of_mean
from eval.results.base_vs_sft import estimate, scaled
from eval.results.evaluation import Evaluation, Values

TRAINING = {
    "loss": "held-out loss",
    "entropy": "held-out entropy",
    "token_accuracy": "held-out token accuracy",
}
"""Metric of a step -> its line; ``val_`` and its name is the metric on the held-out rows."""
LEGEND = (
    "Means over problems, with their intervals; p is the share of right ones among a problem's "
    "rollouts. −log p is the mean over the rollouts' tokens. The held-out figures are those of "
    "training after the step, or where it says so those of the step's training batch; only their "
    "means are recorded, so they have no interval."
)


@dataclass(frozen=True)
class Surprisal:
    """The mean of -log p over the tokens of rollouts, in nats, and both ends of its interval."""

    mean: float
    lower: float
    upper: float


def table(candidates: Sequence[Candidate]) -> str:
    """Returns a Markdown table with a column per candidate."""
    columns = [_cells(c) for c in candidates]
    lines = [["", *(str(c.label) for c in candidates)]]
    lines += [[title, *(column[title] for column in columns)] for title in columns[0]]
    return markdown_table(lines)


def _cells(candidate: Candidate) -> dict[str, str]:
    """Returns title -> cell; the titles depend on the number of rollouts alone."""
    e = candidate.evaluation
    teach = candidate.of_problems(e.signals["teach"])
    cells = {"pass@1": estimate(candidate.of_problems(e.values["pass@1"]))}
    if e.n > 1:
        cells[f"pass@{e.n}"] = estimate(candidate.criterion)
        cells["problems solved sometimes"] = estimate(candidate.of_problems(e.signals["mixed"]))
        cells["p(1 − p)"] = scaled(teach, 1, 3)
    found = surprisal(candidate)
    cells["−log p, nats per token"] = (
        f"{found.mean:.3f} [{found.lower:.3f}, {found.upper:.3f}]" if found else "not recorded"
    )
    cells["hit the budget"] = estimate(candidate.of_problems(_truncated(e)))
    cells["no answer in the required form"] = estimate(candidate.of_problems(_unanswered(e)))
    return cells | {title: trained(candidate, key) for key, title in TRAINING.items()}


def trained(candidate: Candidate, metric: str) -> str:
    """Returns a metric of training at the candidate's step, as text."""
    held_out, own = candidate.trained.get(f"val_{metric}"), candidate.trained.get(metric)
    value = own if held_out is None else held_out
    if value is None:
        return "–"
    shown = f"{value * 100:.2f} %" if metric == "token_accuracy" else f"{value:.4f}"
    return shown if held_out is not None else f"{shown} (training batch)"


def surprisal(candidate: Candidate) -> Surprisal | None:
    """Returns -log p over all tokens of the rollouts that have a ``mean_logprob``; None if none
    has.

    It is a ratio of two sums over problems, of -log p and of tokens. Its variance is that of the
    mean of (x - r w) / mean(w), for a problem with sum x, w tokens and the ratio r (Cochran,
    Sampling Techniques, 1977, section 6.11, combined), its interval Student's t.
    """
    from scipy.special import stdtrit  # slow to import

    sums: dict[tuple[str, str], float] = {}
    tokens: dict[tuple[str, str], int] = {}
    for (name, problem, _), rollout in candidate.evaluation.rollouts.items():
        if rollout.mean_logprob is not None:
            key = name, problem
            sums[key] = sums.get(key, 0.0) - rollout.tokens * rollout.mean_logprob
            tokens[key] = tokens.get(key, 0) + rollout.tokens
    if not sum(tokens.values()):
        return None
    ratio, mean = sum(sums.values()) / sum(tokens.values()), sum(tokens.values()) / len(tokens)
    rest: Sets = candidate.of_problems({k: (sums[k] - ratio * tokens[k]) / mean for k in tokens})
    variance, freedom = variance_of_mean(rest)
    half = float(stdtrit(freedom, 0.975)) * sqrt(variance)
    return Surprisal(ratio, ratio - half, ratio + half)


def _truncated(e: Evaluation) -> Values:
    return _shares({key: r.finish_reason == "length" for key, r in e.rollouts.items()})


def _unanswered(e: Evaluation) -> Values:
    return _shares({key: g.state not in ANSWERED for key, g in e.grades.items()})


def _shares(are: Mapping[tuple[str, str, int], bool]) -> Values:
    """Returns the share of each problem's rollouts that are so."""
    rows: dict[tuple[str, str], list[bool]] = {}
    for (name, problem, _), value in are.items():
        rows.setdefault((name, problem), []).append(value)
    return {key: sum(row) / len(row) for key, row in rows.items()}
