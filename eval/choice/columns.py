"""The figures of candidates side by side: figures over all problems with intervals, and training
metrics at the candidates' steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

from common.records import ANSWERED
from common.text import markdown_table, percent
from eval.choice.candidates import Candidate
from eval.grading import replicates
from eval.grading.intervals import variance_of_mean
from eval.grading.metrics import TOTAL
from eval.grading.replicates import Runs
from eval.results.base_vs_sft import estimate, scaled
from eval.results.compare_groups import estimated
from eval.results.evaluation import Evaluation, Values
from eval.results.group_targets import runs_of

TRAINING = {
    "loss": "held-out loss",
    "entropy": "held-out entropy",
    "token_accuracy": "held-out token accuracy",
}
"""Metric of a step -> title of its line; with the prefix ``val_`` it is the metric on the held-out
rows.
"""
MEANINGS = (
    "p is the share of right ones among a problem's rollouts. −log p is the mean over the "
    "rollouts' tokens. The held-out figures are training's validation after the step or, if marked "
    "so, those of the step's training batch; only their means are recorded, so they have no "
    "interval."
)
LEGEND = f"Means over problems, with their intervals; {MEANINGS}"


@dataclass(frozen=True)
class Surprisal:
    """The mean of -log p over the tokens of rollouts, in nats, and both ends of its interval."""

    mean: float
    lower: float
    upper: float


def table(candidates: Sequence[Candidate]) -> str:
    """Returns a Markdown table with a column per candidate."""
    return table_of_runs([[c] for c in candidates])


def table_of_runs(models: Sequence[Sequence[Candidate]]) -> str:
    """Returns a Markdown table with a column per model. If several runs have the model, figures are
    means over runs, with intervals over runs and problems.
    """
    columns = [_cells(members) for members in models]
    lines = [["", *(str(members[0].label) for members in models)]]
    lines += [[title, *(column[title] for column in columns)] for title in columns[0]]
    return markdown_table(lines)


def _cells(members: Sequence[Candidate]) -> dict[str, str]:
    """Returns title -> cell; the titles depend only on the number of rollouts."""
    n = members[0].n
    cells = {"pass@1": _share(members, lambda e: e.values["pass@1"])}
    if n > 1:
        cells[f"pass@{n}"] = _share(members, lambda e: e.solved[e.n])
        cells["problems solved sometimes"] = _share(members, lambda e: e.signals["mixed"])
        cells["p(1 − p)"] = _teach(members)
    found = surprisal(*members)
    cells["−log p, nats per token"] = (
        f"{found.mean:.3f} [{found.lower:.3f}, {found.upper:.3f}]" if found else "not recorded"
    )
    cells["hit the budget"] = _share(members, _truncated)
    cells["no answer in the required form"] = _share(members, _unanswered)
    return cells | {title: trained(members, key) for key, title in TRAINING.items()}


def _share(members: Sequence[Candidate], values: Callable[[Evaluation], Values]) -> str:
    """Returns a mean in percent, with its interval."""
    runs = [m.of_problems(values(m.evaluation)) for m in members]
    return estimate(runs[0]) if len(runs) == 1 else estimated(_aligned(members, values))


def _teach(members: Sequence[Candidate]) -> str:
    """Returns the mean of p(1 - p), with its interval."""
    if len(members) == 1:
        return scaled(members[0].of_problems(members[0].evaluation.signals["teach"]), 1, 3)
    runs = _aligned(members, lambda e: e.signals["teach"])
    found = replicates.mean(runs)
    return f"{replicates.middle(runs):.3f} [{found.lower:.3f}, {found.upper:.3f}]"


def _aligned(members: Sequence[Candidate], values: Callable[[Evaluation], Values]) -> Runs:
    """Returns values by run and set, for the problems for which every run has a value."""
    every = [values(m.evaluation) for m in members]
    return runs_of(every, set.intersection(*map(set, every)), TOTAL)


def trained(members: Sequence[Candidate], metric: str) -> str:
    """Returns a training metric at the candidate's step, as text; for several runs the mean, if all
    have it.
    """
    for prefix, note in (("val_", ""), ("", " (training batch)")):
        values = [m.trained.get(f"{prefix}{metric}") for m in members]
        known = [value for value in values if value is not None]
        if len(known) == len(values):
            mean = sum(known) / len(known)
            shown = percent(mean) if metric == "token_accuracy" else f"{mean:.4f}"
            return f"{shown}{note}"
    return "–"


def surprisal(*members: Candidate) -> Surprisal | None:
    """Returns the mean of -log p over all tokens of the rollouts that have a ``mean_logprob``,
    averaged over runs; None if a run has none.

    It is a ratio of two sums over problems, of -log p and of tokens. Its variance is that of the
    mean of (x - r w) / mean(w), for a problem with sum x, w tokens and the ratio r (Cochran,
    Sampling Techniques, 1977, section 6.11, combined), its interval Student's t, or of several runs
    that over runs and problems.
    """
    from scipy.special import stdtrit  # slow to import

    found = [_linearised(m) for m in members]
    known = [of for of in found if of is not None]
    if len(known) < len(found):
        return None
    ratio = sum(r for r, _ in known) / len(known)
    if len(known) > 1:
        whole: list[Values] = [{k: r + x for k, x in rest.items()} for r, rest in known]
        over = replicates.mean_of_reals(runs_of(whole, set.intersection(*map(set, whole)), TOTAL))
        return Surprisal(ratio, over.lower, over.upper)
    variance, freedom = variance_of_mean(members[0].of_problems(known[0][1]))
    half = float(stdtrit(freedom, 0.975)) * sqrt(variance)
    return Surprisal(ratio, ratio - half, ratio + half)


def _linearised(candidate: Candidate) -> tuple[float, Values] | None:
    """Returns the ratio r of one run, and (x - r w) / mean(w) for each problem."""
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
    return ratio, {k: (sums[k] - ratio * tokens[k]) / mean for k in tokens}


def _truncated(e: Evaluation) -> Values:
    return _shares({key: r.finish_reason == "length" for key, r in e.rollouts.items()})


def _unanswered(e: Evaluation) -> Values:
    return _shares({key: g.state not in ANSWERED for key, g in e.grades.items()})


def _shares(are: Mapping[tuple[str, str, int], bool]) -> Values:
    """Returns the share of each problem's rollouts for which ``are`` is true."""
    rows: dict[tuple[str, str], list[bool]] = {}
    for (name, problem, _), value in are.items():
        rows.setdefault((name, problem), []).append(value)
    return {key: sum(row) / len(row) for key, row in rows.items()}
