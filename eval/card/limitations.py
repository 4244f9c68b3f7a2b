"""The limitations in a model card, derived from the evaluations' figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from eval.grading.metrics import TOTAL, answered
from eval.results.base_vs_sft import NEAR_ZERO, Comparison, Evaluation

FEW_PROBLEMS = 50
ALWAYS = (
    "This is one training run with one seed: the intervals cover the choice of problems, not the "
    "differences between runs.",
    "It was trained and evaluated on mathematics in English only.",
    "Its reasoning can be wrong and still sound confident. Check its answers.",
)


def text(compared: Sequence[Comparison]) -> str:
    """Returns a Markdown list: limitations that the figures show, then those of every such
    model.
    """
    lines: list[str] = []
    for c in compared:
        lines += _format(c)
        if c.sft:
            lines += _of(c.sft)
    return "\n".join(f"- {line}" for line in (*lines, *ALWAYS))


def _format(compared: Comparison) -> Iterator[str]:
    if compared.base and compared.sft:
        before, after = _unanswered(compared.base), _unanswered(compared.sft)
        if before > after:
            yield (
                f"Part of the improvement is format: {before:.1%} of the base model's rollouts "
                f"gave no answer, but only {after:.1%} of this model's. The base model was not "
                "trained on the chat format of the evaluation."
            )


def _of(sft: Evaluation) -> Iterator[str]:
    total = sft.figures[TOTAL]
    if hits := total["hit_budget"]:
        cut = total["states"].get("truncated", 0) / total["rollouts"]
        yield (
            f"{hits:.1%} of its rollouts hit the budget of {sft.settings.sampling.max_tokens:,} "
            f"tokens (the median rollout has {total['tokens']['p50']:,}); {cut:.1%} had no answer "
            "by then and count as wrong."
        )
    for name, figures in sft.figures.items():
        if name == TOTAL:
            continue
        if figures["pass@1"] <= NEAR_ZERO:
            yield f"It solves almost nothing of {name}: pass@1 is {figures['pass@1']:.2%}."
        if figures["problems"] < FEW_PROBLEMS:
            count = figures["problems"]
            yield f"{name} has only {count} problems: read its figures with their intervals."


def _unanswered(evaluation: Evaluation) -> float:
    total = evaluation.figures[TOTAL]
    return 1 - answered(total) / total["rollouts"]
