"""The reward of a rollout in verl's RL: the same exact match as in the evaluation.

verl loads it as ``reward.custom_reward_function.path=pkg://eval.rl.reward``.
"""

from __future__ import annotations

from typing import Any

from data_prep.answers.boxed import grade_state, is_exact


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict[str, Any] | None = None,
    **others: Any,
) -> dict[str, float]:
    """Returns ``score``, the reward, 1 for a right answer and else 0; ``acc``, the same, which
    verl's validation reports; and ``boxed``, 1 if there is a boxed answer and else 0.

    A rollout that the budget ended is judged like any other, as in the evaluation: the right box
    makes it right.
    """
    _, answer = grade_state(solution_str, "stop")
    right = float(is_exact(answer, ground_truth))
    return {"score": right, "acc": right, "boxed": float(answer is not None)}
