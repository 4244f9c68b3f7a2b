"""The evaluated steps of SFT in order, with the base model as step 0, under the headline's settings
and on its problems.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import plots
from common.plots import Line, Panel
from common.text import markdown_table, percent
from eval.choice import candidates
from eval.choice.candidates import Candidate
from eval.grading.metrics import TOTAL
from eval.results.base_vs_sft import Comparison, bounded, estimate, marked, missing
from eval.results.evaluation import Values
from trainer.run.model_label import BASE

BASE_STEP = 0
"""The base model's number among the steps."""
NOT_MEASURED = "–"
TEXT = (
    "The evaluated steps of SFT{base} on {suite}, the headline's problems, under the headline's "
    "settings. {accuracy} Hit the budget: the share of rollouts that the budget of {budget:,} "
    "tokens ended. Held-out loss and entropy are training's validation after the step, in nats per "
    "token, on rows of the dataset and not on these problems ({none} where it was not measured). "
    "Averages and RL's models belong to no step of SFT and are left out."
)


@dataclass(frozen=True)
class Checkpoints:
    """Two or more models in the order of their steps; the models left out, as sentences."""

    models: Sequence[Candidate]
    left_out: Sequence[str]

    @property
    def n(self) -> int:
        """Rollouts per problem."""
        return self.models[0].n


def find(compared: Comparison, steps: Sequence[Mapping[str, Any]]) -> Checkpoints | None:
    """Returns the base model and the evaluated steps of SFT; None if these are fewer than two
    models. ``steps`` are the metrics of training.
    """
    there = [e for e in (compared.base, *compared.steps) if e and e.values["pass@1"]]
    alike = [e for e in there if e.grader == compared.known.grader]
    older = [
        f"{e.name} was graded under other rules: `warmstart grade {e.folder}`."
        for e in there
        if e not in alike
    ]
    return Checkpoints(candidates.of(steps, alike), older) if len(alike) > 1 else None


def section(found: Checkpoints) -> str:
    """Returns an explanation of the figures and a table with a line per model, as Markdown."""
    first, table = found.models[0].evaluation, markdown_table(_table(found))
    accuracy = "Brackets and error bars hold the intervals of pass@1 over problems."
    if found.n > 1:
        accuracy = (
            "Brackets and error bars hold the intervals of pass@1 and of "
            f"pass@{found.n}, the headline's any@{found.n}, over problems."
        )
    text = TEXT.format(
        base=", with the base model as step 0," if first.label == BASE else "",
        suite=", ".join(first.settings.benchmarks),
        accuracy=accuracy,
        budget=first.settings.sampling.max_tokens,
        none=NOT_MEASURED,
    )
    return "\n\n".join([" ".join([text, *marked(table), *found.left_out]), table])


def panels(found: Checkpoints) -> list[Panel]:
    """Returns the curves that have values."""
    accuracies: dict[str, Callable[[Candidate], Values]] = {
        "pass@1": lambda c: c.evaluation.values["pass@1"]
    }
    if found.n > 1:
        accuracies[f"pass@{found.n}"] = lambda c: c.evaluation.solved[found.n]
    drawn = []
    for title, values in accuracies.items():
        known = {_step(c): bounded(c.of_problems(values(c))) for c in found.models if values(c)}
        means = {step: mean for step, (mean, *_) in known.items()}
        intervals = {step: (low, high) for step, (_, low, high, _) in known.items()}
        drawn.append(Panel(title, _lines(means, intervals), share=True))
    cut = {_step(c): _figures(c)["hit_budget"] for c in found.models}
    drawn.append(Panel("Hit the budget", _lines(cut), share=True))
    medians = {_step(c): _figures(c)["tokens"]["p50"] for c in found.models}
    drawn.append(Panel("Median rollout (tokens)", _lines(medians)))
    for title, held_out in {
        "Held-out loss (nats per token)": {_step(c): c.held_out for c in found.models},
        "Held-out entropy (nats per token)": {_step(c): c.held_out_entropy for c in found.models},
    }.items():
        if measured := {step: value for step, value in held_out.items() if value is not None}:
            line = Line("held out", measured, "held-out", dots=True)
            drawn.append(Panel(title, [line], digits=4, zero=False))
    return [panel for panel in drawn if panel.lines]


def picture(path: Path, found: Checkpoints) -> None:
    """Draws the curves as a PNG file with one panel each."""
    plots.panels(path, panels(found))


def _table(found: Checkpoints) -> list[list[str]]:
    several = [f"pass@{found.n}"] if found.n > 1 else []
    ends = ["hit the budget", "median rollout, tokens", "held-out loss", "held-out entropy"]
    lines = [["", "pass@1", *several, *ends]]
    for c in found.models:
        e, figures = c.evaluation, _figures(c)
        accuracies = [e.values["pass@1"], *([e.solved[e.n]] if several else [])]
        held_out = [c.held_out, c.held_out_entropy]
        lines.append(
            [
                f"{e.name}{missing(TOTAL, e)}",
                *(_estimate(c, values) for values in accuracies),
                percent(figures["hit_budget"]),
                f"{figures['tokens']['p50']:,}",
                *(NOT_MEASURED if value is None else f"{value:.4f}" for value in held_out),
            ]
        )
    return lines


def _estimate(candidate: Candidate, values: Values) -> str:
    # A partial view may have no problem with n rollouts.
    return estimate(candidate.of_problems(values)) if values else NOT_MEASURED


def _lines(
    values: Mapping[int, float], intervals: Mapping[int, tuple[float, float]] | None = None
) -> list[Line]:
    """Returns the curve of all models, and the base model's point again in its own colour."""
    if not values:
        return []
    lines = [Line("SFT", values, "sft", True, intervals or {})]
    if BASE_STEP in values:
        own = {BASE_STEP: intervals[BASE_STEP]} if intervals else {}
        lines.append(Line("base", {BASE_STEP: values[BASE_STEP]}, "base", True, own))
    return lines


def _step(candidate: Candidate) -> int:
    return candidate.label.step or BASE_STEP


def _figures(candidate: Candidate) -> Mapping[str, Any]:
    return candidate.evaluation.figures[TOTAL]
