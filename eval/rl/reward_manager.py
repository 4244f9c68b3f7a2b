"""verl's reward manager, which also tells the reward whether the budget ended the rollout.

verl loads it as ``reward.reward_manager.module.path=pkg://eval.rl.reward_manager``.
"""

from __future__ import annotations

from typing import Any

from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager


class TellsTruncation(NaiveRewardManager):
    """Adds ``truncated`` to the reward's ``extra_info``."""

    async def run_single(self, data: Any) -> dict[str, Any]:
        """Returns the reward of the last sequence in ``data``."""
        item = data[-1]
        mask = item.batch["attention_mask"][-item.batch["responses"].shape[-1] :]
        length = int(mask.sum())
        ends = (self.tokenizer.eos_token_id, self.tokenizer.pad_token_id)
        stopped = length > 0 and int(item.batch["responses"][length - 1]) in ends
        full = length >= self.config.data.max_response_length
        item.non_tensor_batch["extra_info"]["truncated"] = full and not stopped
        return await super().run_single(data)
