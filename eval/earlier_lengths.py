"""Expected lengths of rollouts, from the evaluation of another checkpoint of the run.

They decide the order in which rollouts start, and nothing else. Lengths of different models are
comparable if the tokenizer, the prompt and the sampling are the same, and if the earlier budget was
at least as large: then its rollouts, cut at this evaluation's budget, are as long as they would
have been under it. The base model's lengths say nothing about those of trained checkpoints, nor the
other way round.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from common.errors import UserError
from common.files import file_errors
from common.records import Problem
from eval import taking_over
from eval.evaluation_settings import SETTINGS, EvaluationSettings
from eval.generation import rollout_files
from eval.generation.expected_lengths import ProblemKey
from trainer.run.folder import is_complete
from trainer.run.model_label import BASE, ModelLabel


def expected(
    folder: Path, settings: EvaluationSettings, problems: Sequence[Problem], others: Iterable[Path]
) -> dict[ProblemKey, float]:
    """Returns mean tokens by problem, from the nearest checkpoint's complete evaluation among
    ``others`` of the most problems, and says on stderr whose they are; empty if there is none, or
    if ``folder`` lacks no rollout.

    Evaluations whose rollouts can be taken over are left out: those rollouts count already. One
    that is damaged is skipped, and named.
    """
    done = rollout_files.read(folder / rollout_files.ROLLOUTS)
    ks = range(settings.sampling.rollouts)
    missing = {(p.set, p.id) for p in problems if any((p.set, p.id, k) not in done for k in ks)}
    usable: list[tuple[tuple[int, ...], Path, EvaluationSettings]] = []
    for other in others:
        if not missing or other == folder or not is_complete(other):
            continue
        try:
            with file_errors(other):
                if taking_over.is_alike(other, settings):
                    continue
                found = EvaluationSettings.read(other / SETTINGS)
        except UserError as e:
            _skip(other, e)
            continue
        asked = sum(_same_set(found, settings, name) for name, _ in missing)
        if asked and _is_comparable(found, settings):
            usable.append(((-asked, *_distance(settings.label, found.label)), other, found))
    for _, other, found in sorted(usable, key=lambda entry: entry[:2]):
        try:
            with file_errors(other):
                means = _means(other, found, settings)
        except UserError as e:
            _skip(other, e)
            continue
        if prior := {problem: means[problem] for problem in means.keys() & missing}:
            print(
                f"{folder.name}: expected lengths from {found.label}'s evaluation "
                f"({len(prior):,} problems)",
                file=sys.stderr,
                flush=True,
            )
            return prior
    return {}


def _means(
    other: Path, found: EvaluationSettings, settings: EvaluationSettings
) -> dict[ProblemKey, float]:
    """Returns mean tokens within the budget by problem. The mean of all problems counts as one more
    rollout of each, since that of few rollouts is uncertain.
    """
    tokens: dict[ProblemKey, list[int]] = {}
    for (name, problem, _), rollout in taking_over.read_rollouts(other).items():
        if _same_set(found, settings, name):
            cut = min(rollout.tokens, settings.sampling.max_tokens)
            tokens.setdefault((name, problem), []).append(cut)
    means = [sum(of) / len(of) for of in tokens.values()]
    return {
        problem: (sum(means) / len(means) + sum(of)) / (1 + len(of))
        for problem, of in tokens.items()
    }


def _is_comparable(found: EvaluationSettings, settings: EvaluationSettings) -> bool:
    ours, theirs = settings.sampling, found.sampling
    return (
        (found.label == BASE) == (settings.label == BASE)
        and (found.template, found.tokenizer, found.prompt)
        == (settings.template, settings.tokenizer, settings.prompt)
        and (theirs.temperature, theirs.top_p) == (ours.temperature, ours.top_p)
        and theirs.max_tokens >= ours.max_tokens
    )


def _same_set(found: EvaluationSettings, settings: EvaluationSettings, name: str) -> bool:
    return found.benchmarks.get(name) == settings.benchmarks[name]


def _distance(label: ModelLabel, other: ModelLabel) -> tuple[int, int]:
    """Returns a key that sorts the nearest model first: of the same kind and RL start the nearest
    step; of another kind the last step.
    """
    if (label.kind, label.start) != (other.kind, other.start):
        return 1, -(other.step or other.rl or 0)
    return 0, abs((label.step or label.rl or 0) - (other.step or other.rl or 0))


def _skip(other: Path, e: UserError) -> None:
    print(f"no expected lengths from {other.name}: {e}", file=sys.stderr, flush=True)
