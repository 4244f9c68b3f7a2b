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
) -> dict[str, float | str]:
    """Returns ``score``, the reward, 1 for a right answer and else 0; ``acc`` and ``exact``, the
    same, the first of which verl's validation reports; ``truncated``, 1 if the budget ended the
    rollout and else 0 (``extra_info["truncated"]``); and ``state``, as ``grade_state`` names it.

    A rollout that the budget ended is judged like any other, as in the evaluation: the right box
    makes it right.
    """
    truncated = bool((extra_info or {}).get("truncated"))
    state, answer = grade_state(solution_str, "length" if truncated else "stop")
    right = float(is_exact(answer, ground_truth))
    return {
        "score": right,
        "acc": right,
        "exact": right,
        "truncated": float(truncated),
        "state": state,
    }
