"""Collects the page's data on rollouts: the results in the grid, and the packed texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from common.records import ANSWERED, Grade, graders_differ
from eval.grading.metrics import TOTAL
from eval.report.html.texts import Sheet, pack
from eval.report.html.words import words
from eval.results.base_vs_sft import missing
from eval.results.evaluation import Evaluation
from trainer.run.folder import Run

LISTED = 200
"""Maximum number of grader disagreements listed per evaluation."""
SHORT = 120
"""Maximum length of an answer in that list, in characters."""


def sheets(evaluation: Evaluation) -> list[Sheet]:
    """Returns one sheet per problem, in the evaluation's order."""
    rollouts, grades = evaluation.rollouts, evaluation.grades
    found = []
    for problem in evaluation.problems:
        keys = [(problem.set, problem.id, k) for k in range(evaluation.n)]
        pairs = [
            (rollouts[key], grades[key]) if key in rollouts and key in grades else None
            for key in keys
        ]
        found.append(Sheet(problem, pairs))
    return found


def packed(evaluations: Sequence[Sequence[Sheet]]) -> list[tuple[str, Markup]]:
    """Returns (id of its element, packed text) of each evaluation's sheets."""
    texts = iter(pack([sheet for sheets in evaluations for sheet in sheets]))
    return [
        (f"sheet-{i}-{p}", Markup(next(texts)))
        for i, sheets in enumerate(evaluations)
        for p in range(len(sheets))
    ]


def data(
    run: Run, evaluations: Sequence[Evaluation], sheets: Sequence[Sequence[Sheet]]
) -> dict[str, Any]:
    """Returns the data that the page's script shows before a rollout is opened: the problems of all
    evaluations, and each evaluation's results, with ``at`` as the problem's index.
    """
    problems = {
        (sheet.problem.set, sheet.problem.id): sheet.problem for some in sheets for sheet in some
    }
    at = {key: i for i, key in enumerate(problems)}
    return {
        "problems": [
            {"set": p.set, "id": p.id, "words": words(p.problem)} for p in problems.values()
        ],
        "evaluations": [_shown(run, e, s, at) for e, s in zip(evaluations, sheets, strict=True)],
    }


def _shown(
    run: Run, evaluation: Evaluation, sheets: Sequence[Sheet], at: dict[tuple[str, str], int]
) -> dict[str, Any]:
    differ = [[k for k, pair in enumerate(s.rollouts) if pair and _differ(pair[1])] for s in sheets]
    disagreeing = [(p, k) for p, ks in enumerate(differ) for k in ks]
    return {
        "name": str(evaluation.label),
        "label": f"{evaluation.name}{missing(TOTAL, evaluation)}",
        "folder": str(evaluation.folder.relative_to(run.root)),
        "n": evaluation.n,
        "problems": [
            {
                "at": at[sheet.problem.set, sheet.problem.id],
                "states": "".join(_state(pair[1]) if pair else "m" for pair in sheet.rollouts),
                "tokens": [pair and pair[0].tokens for pair in sheet.rollouts],
                "differ": ks,
            }
            for sheet, ks in zip(sheets, differ, strict=True)
        ],
        "unjudged": evaluation.figures[TOTAL]["verified_timeouts"],
        "disagreeing": len(disagreeing),
        "disagreements": [_disagreement(sheets[p], p, k) for p, k in disagreeing[:LISTED]],
    }


def _differ(grade: Grade) -> bool:
    return graders_differ(grade.exact, grade.verified)


def _disagreement(sheet: Sheet, p: int, k: int) -> tuple[Any, ...]:
    pair = sheet.rollouts[k]
    assert pair
    grade = pair[1]
    gold, extracted = _short(sheet.problem.answer), _short(grade.extracted)
    return p, k, gold, extracted, grade.exact, grade.verified


def _state(grade: Grade) -> str:
    """Returns right, wrong, truncated or no answer as the letter that the page's script reads."""
    if grade.state in ANSWERED:
        return "r" if grade.exact else "w"
    return "t" if grade.state == "truncated" else "n"


def _short(answer: str | None) -> str | None:
    return answer if answer is None or len(answer) <= SHORT else f"{answer[:SHORT]}…"
