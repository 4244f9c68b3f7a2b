"""verl's FSDP2 engine with the two things this job needs changed: who makes the micro-batches, and the loss.

verl cuts micro-batches itself, a rank at a time, and cannot run a rank without rows; here the sampler's
plan is executed as it is. Without flash-attn, verl computes token losses in a Python loop over tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.utils.dataset.dataset_utils import DatasetPadMode, SFTTensorCollator
from verl.utils.torch_functional import FLAH_ATTN_CROSS_ENTROPY_LOSS_AVAILABLE
from verl.workers.engine import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead
from verl.workers.utils.losses import sft_loss

BACKEND = "warmstart"
_collate = SFTTensorCollator(DatasetPadMode.NO_PADDING)


@EngineRegistry.register(model_type="language_model", backend=BACKEND, device=["cpu", "cuda"])
class Engine(FSDPEngineWithLMHead):
    """Runs a planned step; everything not overridden here is verl's."""

    def forward_backward_batch(self, data: Any, loss_function: Any, forward_only: bool = False) -> torch.Tensor:
        """Runs ``data``, a list of micro-batches, and leaves the gradients accumulated.

        Returns this rank's share of the loss: its mean over ranks is the mean over the global batch's
        supervised tokens.
        """
        total = torch.zeros((), device=next(self.module.parameters()).device)
        for i, micro_batch in enumerate(data):
            last = i == len(data) - 1
            sync = nullcontext() if forward_only else self._gradient_sync_context(is_last_micro_batch=last)
            with torch.no_grad() if forward_only else nullcontext(), sync:
                loss, _ = self.forward_step(micro_batch, loss_function=loss_function, forward_only=forward_only)
                if not forward_only:
                    loss.backward()
            total += loss.detach()
        return total

    def train_step(
        self, micro_batches: Sequence[Sequence[dict[str, torch.Tensor]]], tokens: int
    ) -> tuple[float, float]:
        """One optimizer step over this rank's micro-batches of rows.

        ``tokens`` is the number of supervised tokens in the global batch, the loss's denominator.
        Returns (this rank's share of the loss, gradient norm before clipping).
        """
        batches = [self._micro_batch(rows, tokens) for rows in micro_batches]
        self.optimizer_zero_grad()
        loss = self.forward_backward_batch(batches, partial(sft_loss, None))
        return loss.item(), self.optimizer_step()

    def prepare_model_outputs(
        self, output: Any, output_args: dict, micro_batch: TensorDict, logits_processor_func: Any
    ) -> dict:
        """Log-probabilities of the packed tokens, nested by row, in one call.

        With flash-attn verl's own in-place kernel is leaner, so that stays.
        """
        if FLAH_ATTN_CROSS_ENTROPY_LOSS_AVAILABLE:
            return super().prepare_model_outputs(output, output_args, micro_batch, logits_processor_func)
        logits = output.logits.squeeze(0).float()
        labels = output_args["input_ids_rmpad_rolled"]
        log_probs = -torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        log_probs = self._gather_and_unpad_packed(log_probs, output_args["pad_size"])
        offsets = micro_batch["input_ids"].offsets()
        return {"log_probs": torch.nested.nested_tensor_from_jagged(log_probs, offsets)}

    def _micro_batch(self, rows: Sequence[dict[str, torch.Tensor]], tokens: int) -> TensorDict:
        """Rows in verl's packed form; a rank without rows runs two tokens that carry no loss."""
        if not rows:
            rows = [{name: torch.zeros(2, dtype=torch.int64) for name in ("input_ids", "position_ids", "loss_mask")}]
        settings = {
            "use_remove_padding": True,
            "pad_mode": DatasetPadMode.NO_PADDING,
            "temperature": 1.0,
            "batch_num_tokens": tokens,
            "dp_size": self.get_data_parallel_size(),
        }
        return tu.get_tensordict(tensor_dict=_collate(list(rows)), non_tensor_dict=settings)
