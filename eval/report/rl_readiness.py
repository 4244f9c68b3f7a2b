"""Assesses whether a checkpoint is ready for RL, from the rewards that GRPO would see in its
evaluation.

GRPO's advantage is a rollout's reward minus its group's mean (Shao et al., DeepSeekMath, 2024,
section 4.1): a group whose rollouts are all right or all wrong gives no gradient, although it costs
as much to sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import log2
from statistics import fmean
from typing import Any

from common.text import markdown_table, percent
from eval.grading.metrics import TOTAL, answered, pass_at_k, tallies
from eval.results.base_vs_sft import Comparison, missing
from eval.results.evaluation import Evaluation

GROUP = 8
"""Rollouts per prompt in an RL step."""
KEPT = 0.99
"""Share of the accuracy that a budget for RL must retain."""
ANSWER_RATE, STOPPED = 0.95, 0.9
"""Shares of rollouts that answer, and that stop by themselves, below which the model needs a fix
before RL.
"""
SCARCE = 0.2
"""Share of informative groups below which most of RL's rollouts are wasted."""
HEADROOM = 0.05
"""Gain from pass@1 to pass@n below which more sampling solves almost no new problems."""


def readiness(evaluation: Evaluation) -> dict[str, Any]:
    """Returns what RL would see on the evaluation's problems. Shares are in 0..1, lengths in
    tokens:

    - ``n``: rollouts per problem; ``all_wrong``, ``mixed``, ``all_right``: shares of problems with
      no right rollout, with both right and wrong ones, with right ones only;
    - ``group``: rollouts per group, min(``GROUP``, ``n``); ``informative``: expected share of such
      groups with both right and wrong rollouts (:func:`informative`), null if no problem has enough
      rollouts for a group of two or more;
    - ``pass@k``: for k = 1..n, and ``doubling``: its mean gain per doubling of k, null for one
      rollout;
    - ``answered``: share with an answer among the rollouts that the budget did not cut off before
      an answer, null if it cut off all; ``stopped``: share of rollouts that the budget did not end;
    - ``tokens``: percentiles of a rollout's length; ``budget``: the evaluation's; ``enough``:
      :func:`enough`;
    - ``bare``: whether its run trains no model.

    For a partial evaluation, only existing rollouts count.
    """
    figures, n = evaluation.figures[TOTAL], evaluation.n
    counts = list(tallies(evaluation.grades.values()).values())
    group = min(GROUP, n)
    grouped = [informative(t.total, t.right, group) for t in counts if t.total >= group > 1]
    # A partial view may have no problem with n rollouts.
    curve = [value for value in figures["pass@k"] if value is not None]
    ended = figures["rollouts"] - figures["states"].get("truncated", 0)
    return {
        "n": n,
        "all_wrong": fmean(t.right == 0 for t in counts),
        "mixed": fmean(0 < t.right < t.total for t in counts),
        "all_right": fmean(t.right == t.total for t in counts),
        "group": group,
        "informative": fmean(grouped) if grouped else None,
        "pass@k": curve,
        "doubling": (curve[-1] - curve[0]) / log2(len(curve)) if len(curve) > 1 else None,
        "answered": answered(figures) / ended if ended else None,
        "stopped": 1 - figures["hit_budget"],
        "tokens": figures["tokens"],
        "budget": evaluation.settings.sampling.max_tokens,
        "enough": enough(figures),
        "bare": evaluation.bare is not None,
    }


def informative(n: int, right: int, group: int) -> float:
    """Returns the chance that ``group`` rollouts, drawn from ``n`` with ``right`` right ones, are
    not all alike.

    It is 1 - C(right, g) / C(n, g) - C(n - right, g) / C(n, g), without replacement: the unbiased
    estimate of 1 - p^g - (1 - p)^g if a rollout is right with probability p. Each subtracted term
    is one minus pass@k's estimate (Chen et al., 2021; see :func:`eval.grading.metrics.pass_at_k`),
    for wrong and for right rollouts.
    """
    return pass_at_k(n, right, group) + pass_at_k(n, n - right, group) - 1


def enough(figures: dict[str, Any]) -> int:
    """Returns the smallest budget of ``by_budget`` that retains ``KEPT`` of the accuracy; the full
    budget if no rollout is right.
    """
    budget, accuracy = figures["by_budget"][-1]
    if not accuracy:
        return budget
    return min(b for b, left in figures["by_budget"] if left >= KEPT * accuracy)


def section(compared: Comparison) -> str:
    """Returns the report's section, Markdown without its heading: a table of base and SFT, and
    advice for RL from SFT (or from the base model alone).
    """
    columns = [readiness(e) for e in compared.both]
    rows = [list(cells) for cells in zip(_titles(columns[0]), *map(_cells, columns), strict=True)]
    known = compared.known
    temperature = known.settings.sampling.temperature
    caution = (
        f"These are benchmark problems at temperature {temperature}; `warmstart rl` measures the "
        "problems that RL would train on, sampled as RL samples."
    )
    titles = ["", *(f"{e.name}{missing(TOTAL, e)}" for e in compared.both)]
    reading = "\n".join(
        f"- {line}{missing(TOTAL, known)}" for line in (*_reading(columns[-1]), caution)
    )
    return f"{markdown_table([titles, *rows])}\n\nStarting RL from {known.name}:\n\n{reading}"


def _titles(r: dict[str, Any]) -> list[str]:
    n, most = r["n"], len(r["pass@k"])
    return [
        f"problems never solved (0/{n})",
        "problems solved sometimes",
        f"problems always solved ({n}/{n})",
        f"groups of {r['group']} with right and wrong rollouts",
        f"pass@1 → pass@{most}",
        f"gain in pass@k per doubling of k, the rollouts per problem (mean, 1 to {most})",
        "rollouts within the budget that state an answer",
        "rollouts that stop by themselves",
        "tokens: median, 99 %, budget",
        f"budget that keeps {percent(KEPT, 0)} of pass@1, tokens",
    ]


def _cells(r: dict[str, Any]) -> list[str]:
    tokens, curve = r["tokens"], r["pass@k"]
    return [
        *(percent(r[key]) for key in ("all_wrong", "mixed", "all_right")),
        "unknown" if r["informative"] is None else percent(r["informative"]),
        f"{percent(curve[0])} → {percent(curve[-1])}",
        "unknown" if r["doubling"] is None else f"{r['doubling'] * 100:+.2f} points",
        "none ended" if r["answered"] is None else percent(r["answered"]),
        percent(r["stopped"]),
        f"{tokens['p50']:,}, {tokens['p99']:,}, {r['budget']:,}",
        f"{r['enough']:,}",
    ]


def _reading(r: dict[str, Any]) -> Iterator[str]:
    """Yields sentences of advice; what to fix before RL comes first."""
    faults = list(_faults(r))
    yield from (f"Fix first: {fault}" for fault in faults)
    if not faults:
        yield "Nothing has to be fixed first."
    if r["informative"] is None:
        yield (
            "There are too few rollouts per problem for statistics of groups: evaluate with "
            f"eval.rollouts={GROUP} or more."
        )
    else:
        yield (
            f"{percent(r['informative'])} of groups of {r['group']} rollouts would have both right "
            "and wrong ones. GRPO learns only from these, so choose problems that the model solves "
            "sometimes."
        )
        gain = r["pass@k"][-1] - r["pass@k"][0]
        found = (
            f"Sampling {len(r['pass@k'])} times instead of once solves {gain * 100:.2f} points "
            "more of the problems"
        )
        # Yue et al., Does Reinforcement Learning Really Incentivize Reasoning Capacity in LLMs,
        # 2025.
        if gain >= HEADROOM:
            yield (
                f"{found}: RL mostly turns problems solved sometimes into problems solved on the "
                "first try."
            )
        else:
            yield f"{found}: there is little for RL to sharpen here."
    yield (
        f"Give RL {r['enough']:,} tokens per rollout: that keeps {percent(KEPT, 0)} of the "
        f"accuracy at {r['budget']:,}. The median rollout has {r['tokens']['p50']:,}."
    )


def _faults(r: dict[str, Any]) -> Iterator[str]:
    if r["answered"] is None or r["answered"] < ANSWER_RATE:
        rate = "no rollout"
        if r["answered"] is not None:
            rate = f"only {percent(r['answered'])} of the rollouts within the budget"
        yield (
            f"{rate} stated an answer in the required form. Without one there is no reward, "
            f"however good the reasoning: {_longer(r)}."
        )
    if r["stopped"] < STOPPED:
        yield (
            f"{percent(1 - r['stopped'])} of the rollouts hit the budget of {r['budget']:,} "
            "tokens. They cost RL the most and mostly get no reward. Raise the budget if accuracy "
            f"still grows with it; otherwise {_longer(r)}."
        )
    if r["informative"] is not None and r["informative"] < SCARCE:
        if r["all_wrong"] >= r["all_right"]:
            yield (
                "problems like these are too hard: most groups would be all wrong. Take easier "
                f"ones, or {_longer(r)}."
            )
        else:
            yield (
                "problems like these are too easy: most groups would be all right. Take harder "
                "ones."
            )


def _longer(r: dict[str, Any]) -> str:
    return "train it first" if r["bare"] else "train longer"
