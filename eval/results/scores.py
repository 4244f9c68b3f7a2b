"""The accuracy of single evaluations, as shown after an evaluation, in a run's status and in the
overview of runs.
"""

from __future__ import annotations

from typing import Any

from common.errors import UserError
from common.text import markdown_table, percent
from eval.grading.intervals import GAFFKE, LEVEL
from eval.grading.metrics import TOTAL, accuracies
from eval.results import evaluation as evaluations
from eval.results.base_vs_sft import EXACT, bounded, by_set, counted, estimate, shown
from eval.results.evaluation import Evaluation
from trainer.run.folder import Run, is_complete


def table(evaluation: Evaluation) -> str:
    """Returns a Markdown table of an evaluation, with one line per set and one over all, and the
    meaning of its figures and marks.
    """
    names = [name for name in evaluation.figures if name != TOTAL]
    names += [TOTAL] if len(names) > 1 else []
    several = accuracies(evaluation.n)[1:2] if evaluation.n > 1 else []
    lines = [[str(evaluation.label), "pass@1", *several, "hit the budget", "median tokens"]]
    for name in names:
        figures = evaluation.figures[name]
        lines.append(
            [
                f"{shown(name)} ({figures['problems']:,} problems)",
                counted(by_set(evaluation.values["pass@1"], name), evaluation),
                *(estimate(by_set(evaluation.values[metric], name)) for metric in several),
                percent(figures["hit_budget"]),
                f"{figures['tokens']['p50']:,}",
            ]
        )
    made = markdown_table(lines)
    meant = "pass@1: mean over problems of the share of right rollouts; "
    if several:
        meant += f"{several[0]}: share of problems with at least one right rollout; "
    return f"{made}\n\n{meant}{brackets(made)}."


def score(evaluation: Evaluation) -> str:
    """Returns pass@1 over all problems with its interval, in one line."""
    return f"pass@1 {counted(by_set(evaluation.values['pass@1']), evaluation)}"


def of_run(run: Run) -> dict[str, dict[str, Any]]:
    """Returns pass@1 of each complete evaluation by its folder's name: ``percent``, ``low`` and
    ``high`` of its 95 % interval, ``text``; for a damaged evaluation ``damaged``, the fault.
    """
    found: dict[str, dict[str, Any]] = {}
    for folder in filter(is_complete, run.evaluations):
        try:
            evaluation = evaluations.read(folder)
            mean, low, high, _ = bounded(by_set(evaluation.values["pass@1"]))
            found[folder.name] = {
                "percent": 100 * mean,
                "low": 100 * low,
                "high": 100 * high,
                "text": score(evaluation),
            }
        except UserError as e:
            found[folder.name] = {"damaged": str(e)}
    return found


def brackets(shown: str) -> str:
    """Returns the meaning of the brackets, and of the mark if ``shown`` has it."""
    text = f"brackets: {percent(LEVEL, 0)} intervals over problems like these"
    if EXACT in shown:
        text += f"; {EXACT} {GAFFKE}, where too few problems are right or wrong"
    return text
