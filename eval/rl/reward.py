"""The reward of a rollout in verl's RL: the evaluation's own judgement.

verl loads it as ``reward.custom_reward_function.path=pkg://eval.rl.reward``.
"""

from __future__ import annotations

from typing import Any

from data_prep.answers.boxed import grade_state, is_exact


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None, **others: Any
) -> dict[str, float]:
    """``score``, the reward, is 1 for a right answer and 0 for any other; ``acc``, by which verl's validation goes, is
    the same; ``boxed`` is 1 where there is an answer in a box.

    A rollout that the budget ended is judged like any other, as in the evaluation: it is right with the right box.
    """
    _, answer = grade_state(solution_str, "stop")
    right = float(is_exact(answer, ground_truth))
    return {"score": right, "acc": right, "boxed": float(answer is not None)}
