"""Passes the measured lengths of a run's rollouts to the planner, for RL's settings and the page of
``warmstart plan --rl``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from omegaconf import DictConfig

from common.errors import UserError
from common.records import Problem
from eval.grading.metrics import TOTAL, tallies
from eval.report.rl_readiness import GROUP, enough
from eval.results import evaluation as evaluations
from eval.results.evaluation import Evaluation
from eval.rl import grpo
from eval.rl.gpu_settings import GpuSettings
from eval.rl.grpo import Start
from trainer.batching.flops import Shape
from trainer.planning import rl_page
from trainer.planning.rl_page import RlPlan
from trainer.planning.rl_settings import choose
from trainer.planning.rl_time import RlLoad
from trainer.planning.workload import cluster_of, shape_of
from trainer.run.folder import Run, is_complete

PROMPT = 512
"""Assumed tokens of the longest prompt if no start has measured it."""


def mixed(evaluation: Evaluation) -> list[Problem]:
    """Returns the problems with both right and wrong rollouts."""
    tallied = tallies(evaluation.grades.values())
    counted = [(p, tallied[p.set, p.id]) for p in evaluation.problems]
    return [p for p, tally in counted if 0 < tally.right < tally.total]


def budget(evaluation: Evaluation, problems: Sequence[Problem]) -> int:
    """Returns the smallest budget, in tokens, that retains ``rl_readiness.KEPT`` of the accuracy on
    these problems of a complete evaluation.
    """
    wanted = {(p.set, p.id) for p in problems}
    rollouts = evaluation.rollouts
    right = [
        rollouts[key].tokens
        for key, grade in evaluation.grades.items()
        if grade.exact and key[:2] in wanted
    ]
    # Each problem has the same number of rollouts, so the number of right ones is proportional to
    # the accuracy.
    steps = (budget for budget, _ in evaluation.figures[TOTAL]["by_budget"])
    return enough(
        {"by_budget": [[budget, sum(tokens <= budget for tokens in right)] for budget in steps]}
    )


def lengths(evaluation: Evaluation, problems: Sequence[Problem]) -> list[int]:
    """Returns the tokens of the problems' rollouts."""
    wanted = {(p.set, p.id) for p in problems}
    return [r.tokens for key, r in evaluation.rollouts.items() if key[:2] in wanted]


def settings(
    start: Start, config: DictConfig, shape: Shape, measured: Sequence[int]
) -> GpuSettings:
    """Returns the planner's settings for a start on the configuration's cluster.

    Raises UserError when nothing fits, and as ``grpo.batch_size`` does.
    """
    cluster, sampling = cluster_of(config), start.sampling
    rollouts = grpo.batch_size(start.problems, cluster.ranks) * sampling.rollouts
    load = RlLoad.of(start.prompt, start.response, measured, rollouts, "the pool's evaluation")
    return GpuSettings(shape, cluster, load, choose(shape, cluster, load, sampling.temperature))


def page(config: DictConfig, run: Run | None) -> tuple[str, bool]:
    """Returns (the text of ``warmstart plan --rl``, whether anything fits on the recipe's cluster).

    Lengths are those of the newest complete evaluation of the run's pool, otherwise of its newest
    complete evaluation; for a run without one, and for a recipe, they are assumed.
    """
    cluster = cluster_of(config)
    batch = grpo.batch_size(max(grpo.BATCH, cluster.ranks), cluster.ranks)
    evaluation = _newest(run) if run else None
    group, temperature = GROUP, 1.0
    if evaluation is None:
        limit = config.eval.max_tokens
        load = RlLoad.of(
            PROMPT,
            limit,
            range(limit + 1),
            batch * group,
            "ASSUMED: evenly spread up to eval.max_tokens; warmstart rl RUN says how to measure",
        )
    else:
        load, group, temperature = _measured(evaluation, batch)
    shape = replace(shape_of(config), lora_rank=0)
    name = run.name if run else config.name
    own = config.cluster.gpu
    return rl_page.page(RlPlan(name, shape, cluster, own, load, group, temperature))


def _newest(run: Run) -> Evaluation | None:
    """Returns the newest complete evaluation of the pool; without one, the newest complete
    evaluation.
    """
    found = [evaluations.read(folder) for folder in run.evaluations if is_complete(folder)]
    return max(found, key=lambda e: (evaluations.is_of_pool(e.folder), e.age), default=None)


def _measured(evaluation: Evaluation, batch: int) -> tuple[RlLoad, int, float]:
    """Returns the lengths of the problems that RL would train on, the size of a group and its
    temperature.
    """
    sampling = evaluation.settings.sampling
    problems = mixed(evaluation)
    if not problems:
        raise UserError(
            f"{evaluation.folder} has no problem with both right and wrong rollouts, so RL has "
            "nothing to train on: evaluate another pool or checkpoint (warmstart rl RUN)"
        )
    source = (
        f"measured: the {len(problems):,} problems with both right and wrong rollouts of "
        f"{evaluation.folder.name}; prompts assumed"
    )
    limit, tokens = budget(evaluation, problems), lengths(evaluation, problems)
    pool = evaluations.is_of_pool(evaluation.folder)
    group, temperature = (sampling.rollouts, sampling.temperature) if pool else (GROUP, 1.0)
    return RlLoad.of(PROMPT, limit, tokens, batch * group, source), group, temperature
