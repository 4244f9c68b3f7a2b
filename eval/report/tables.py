"""The report's tables besides the headline: pass@k, budgets, averages, outcomes, what RL could
learn, and grader disagreements.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from common.records import Grade, Rollout, graders_differ
from common.text import in_percent, markdown_table
from eval.grading import rl_signal
from eval.grading.metrics import PUBLISHED_CAP, TOTAL, accuracies, answered
from eval.results import published
from eval.results.base_vs_sft import (
    Comparison,
    Evaluation,
    by_set,
    estimate,
    missing,
    scaled,
    shown,
)

LISTED = 10
"""Maximum number of grader disagreements listed per evaluation."""
LONG = 256
"""If the median rollout has at least this many tokens, two identical rollouts are not a
coincidence.
"""


def pass_at_k(compared: Comparison) -> str:
    """Returns pass@k with its intervals, for powers of two and for all rollouts of a problem."""
    n = compared.known.n
    ks = [k for k in range(1, n + 1) if k & (k - 1) == 0 or k == n]
    lines = [["pass@k", *(f"k = {k}" for k in ks)]]
    for e, name, _ in _lines(compared):
        curve = [by_set(e.solved[k], name) for k in ks]
        lines.append([_name(e, name), *(estimate(sets) if sets else "none" for sets in curve)])
    return markdown_table(lines)


def by_budget(compared: Comparison, reference: Mapping[str, Any] | None) -> str:
    """Returns pass@1 if longer rollouts counted as wrong, for every second budget up to the full
    one and for ``PUBLISHED_CAP``, next to published figures.
    """
    budgets = [b for b, _ in compared.known.figures[TOTAL]["by_budget"]]
    columns = set(budgets[::-2])
    if PUBLISHED_CAP in budgets:
        columns.add(PUBLISHED_CAP)
    shown_budgets = sorted(columns)
    lines, given = [["pass@1 by budget, %", *(f"{b:,}" for b in shown_budgets)]], []
    for e, name, figures in _lines(compared):
        curve = dict(figures["by_budget"])
        lines.append([_name(e, name), *(_percent(curve[b]) for b in shown_budgets)])
        theirs = published.figures(reference, e, name, "pass@1").get(e.label.kind)
        given.append("" if theirs is None else f"{theirs:.2f}")
    if any(given) and reference:
        cap = f" ({reference['max_tokens']:,})" if "max_tokens" in reference else ""
        for line, cell in zip(lines, [f"published{cap}", *given], strict=True):
            line.append(cell)
    return markdown_table(lines)


def averages(compared: Comparison) -> str:
    """Returns each accuracy as a mean over problems (micro) and over sets (macro), with the rerun
    error of pass@1.
    """
    names = accuracies(compared.known.n)
    lines = [["%", *names, "rerun error of pass@1"]]
    for e, name, figures in _lines(compared):
        error = figures["rerun_error"]
        cells = [_percent(figures[metric]) for metric in names]
        lines.append(
            [_name(e, name), *cells, "unknown" if error is None else f"± {error * 100:.2f}"]
        )
        if name == TOTAL and len(figures_of_sets(e)) > 1:
            macro = [_percent(figures["macro"][metric]) for metric in names]
            lines.append([f"{e.name}, mean of sets{missing(name, e)}", *macro, ""])
    return markdown_table(lines)


def outcomes(compared: Comparison) -> str:
    """Returns how rollouts ended, and the accuracy of those that stopped and of those that the
    budget ended.
    """
    titles = [
        "%",
        "answered",
        "no answer",
        "hit the budget",
        "accuracy of finished",
        "accuracy of cut",
        "looping",
        "identical",
    ]
    lines = [titles]
    for e, name, figures in _lines(compared):
        made, gave = figures["rollouts"], answered(figures)
        shares = [
            gave / made,
            (made - gave) / made,
            figures["hit_budget"],
            figures["accuracy_finished"],
            figures["accuracy_truncated"],
            figures["repeating"],
        ]
        cells = [*map(_percent, shares), f"{figures['identical']:,}"]
        lines.append([_name(e, name), *cells])
    return markdown_table(lines)


def signal(compared: Comparison) -> str:
    """Returns what RL could learn from the rollouts (:mod:`eval.grading.rl_signal`), with intervals
    over problems.
    """
    titles = [
        "",
        "problems solved sometimes",
        "p(1 − p)",
        "distinct answers per problem",
        "−log p, nats per token",
    ]
    lines = [titles]
    for e, name, _ in _lines(compared):
        mixed, teach, distinct = (by_set(e.signals[key], name) for key in rl_signal.SIGNALS)
        made = [e.rollouts[key] for key in e.grades if name in (TOTAL, key[0])]
        # interval() takes values in 0..1.
        shares = [[count / e.n for count in counts] for counts in distinct]
        lines.append(
            [
                _name(e, name),
                estimate(mixed),
                scaled(teach, 1, 3) if teach else "unknown",
                scaled(shares, e.n, 2),
                _surprisal(made),
            ]
        )
    return markdown_table(lines)


def alarms(compared: Comparison) -> list[str]:
    """Returns warnings that point to a fault of the evaluation rather than of the model."""
    found = []
    for e in compared.all:
        figures = e.figures[TOTAL]
        are_long = figures["tokens"]["p50"] >= LONG
        if figures["identical"] and are_long and e.settings.sampling.temperature > 0:
            found.append(
                f"**{figures['identical']:,} rollouts of {e.name} are identical to another one of "
                "their problem, although they are long and sampled: their seeds are not "
                f"independent.**{missing(TOTAL, e)}"
            )
    return found


def disagreement_counts(compared: Comparison) -> Iterator[str]:
    """Yields a sentence per evaluation: how often math-verify reached the opposite of exact match,
    and how often it gave no verdict.
    """
    for e in compared.all:
        found, lost = _disagreeing(e), e.figures[TOTAL]["verified_timeouts"]
        yield (
            f"{e.name}: the graders disagree on {len(found):,} of {len(e.grades):,} rollouts; "
            f"{sum(not g.exact for g in found):,} of these are right by math-verify only. It gave "
            f"no verdict on {lost:,} rollouts.{missing(TOTAL, e)}"
        )


def disagreements(compared: Comparison) -> list[str]:
    """Returns a table per evaluation of the first rollouts on which the graders disagree."""
    drawn = []
    for e in compared.all:
        golds, found = {(p.set, p.id): p.answer for p in e.problems}, _disagreeing(e)
        if not found:
            continue
        first = f"{e.name}: rollout (set, problem, k){missing(TOTAL, e)}"
        lines = [[first, "exact match", "math-verify", "extracted", "gold"]]
        lines += [_disagreement(g, golds[g.key[:2]]) for g in found[:LISTED]]
        if len(found) > LISTED:
            lines.append([f"and {len(found) - LISTED:,} more", "", "", "", ""])
        drawn.append(markdown_table(lines))
    return drawn


def figures_of_sets(evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    """Returns the figures per set, without the total."""
    return {name: figures for name, figures in evaluation.figures.items() if name != TOTAL}


def _lines(compared: Comparison) -> Iterator[tuple[Evaluation, str, dict[str, Any]]]:
    """Yields the evaluation, set and figures of each line; a single set is not repeated as a
    total.
    """
    for e in compared.all:
        sets = figures_of_sets(e)
        yield from ((e, name, figures) for name, figures in sets.items())
        if len(sets) > 1:
            yield e, TOTAL, e.figures[TOTAL]


def _name(evaluation: Evaluation, name: str) -> str:
    return f"{evaluation.name}, {shown(name)}{missing(name, evaluation)}"


def _surprisal(rollouts: Sequence[Rollout]) -> str:
    mean = rl_signal.surprisal(rollouts)
    if mean is None:
        return "not recorded"
    logged = sum(rollout.mean_logprob is not None for rollout in rollouts)
    part = "" if logged == len(rollouts) else f" ({logged:,} of {len(rollouts):,} rollouts)"
    return f"{mean:.3f}{part}"


def _disagreeing(evaluation: Evaluation) -> list[Grade]:
    grades = evaluation.grades.values()
    return [g for g in grades if graders_differ(g.exact, g.verified)]


def _percent(share: float | None) -> str:
    return "none" if share is None else in_percent(share)


def _disagreement(grade: Grade, gold: str) -> list[str]:
    key = "/".join(map(str, grade.key))
    verdicts = ["right" if opinion else "wrong" for opinion in (grade.exact, grade.verified)]
    extracted = "none" if grade.extracted is None else _code(grade.extracted)
    return [_code(key), *verdicts, extracted, _code(gold)]


def _code(text: str, longest: int = 60) -> str:
    """Returns a model's text as inline code of one line, for a cell of ``markdown_table``;
    unprintable characters become U+FFFD.
    """
    flat = "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))
    flat = flat[: longest - 1] + "…" if len(flat) > longest else flat
    return "`" + flat.replace("`", "'") + "`" if flat else "(empty)"
