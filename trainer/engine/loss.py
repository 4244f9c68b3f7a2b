"""Chunked cross entropy of a linear head: memory grows with tokens, not with tokens x vocabulary.

verl's fused kernels fail on FSDP2 with an untied head. Here the head returns the loss from its own
forward, where FSDP2 has gathered its weights, tied or not.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch

CHUNK_BYTES = 2**30
"""Bytes of float32 logits per chunk."""


def _chunk(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    label: torch.Tensor,
    scale: float,
    needs_gradient: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Returns the losses (n,) in float32, and ``scale`` x their gradient by the logits, in the
    dtype of ``weight``.

    The gradient is None without ``needs_gradient``. The float32 logits are freed on return: the
    matrix products of the gradient need the memory.
    """
    logits = (hidden @ weight.T).float()
    largest, own = logits.amax(-1, keepdim=True), logits.gather(1, label)
    total = logits.sub_(largest).exp_().sum(-1, keepdim=True)
    losses = (largest + total.log() - own).squeeze(1)
    if not needs_gradient:
        return losses, None
    # scale x (softmax - one-hot), in place of the logits and still in float32.
    gradient = logits.mul_(scale / total)
    gradient.scatter_add_(1, label, gradient.new_full((1, 1), -scale).expand_as(label))
    return losses, gradient.to(weight.dtype)


class _LinearCrossEntropy(torch.autograd.Function):
    """Computes the gradients in the forward, so that logits are computed once and never saved."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        labels: torch.Tensor,
        scale: float,
        chunk: int,
        needs: Any,
    ) -> Any:
        needs_hidden, needs_weight = needs
        losses = hidden.new_empty(len(labels), dtype=torch.float32)
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_weight else None
        for start in range(0, len(labels), chunk):
            part = slice(start, start + chunk)
            losses[part], gradient = _chunk(
                hidden[part], weight, labels[part, None], scale, any(needs)
            )
            if gradient is None:
                continue
            if grad_hidden is not None:
                grad_hidden[part] = gradient @ weight
            if grad_weight is None:
                continue
            if weight.dtype == torch.float32:
                grad_weight.addmm_(gradient.T, hidden[part])
            else:
                grad_weight += gradient.T @ hidden[part]
            del gradient  # frees its memory before the next chunk's logits
        ctx.save_for_backward(
            grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype)
        )
        ctx.mark_non_differentiable(losses)
        return losses.sum() * scale, losses

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        factor = grad_outputs[0]
        return (
            *(None if g is None else g.mul_(factor.to(g.dtype)) for g in ctx.saved_tensors),
            None,
            None,
            None,
            None,
        )


def linear_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    scale: float = 1.0,
    chunk_bytes: int = CHUNK_BYTES,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns (``scale`` x sum of the losses, the losses (n,) without gradient), both float32.

    The loss is the cross entropy of ``hidden @ weight.T`` against ``labels``: hidden (n, d) and
    weight (vocabulary, d) have the same floating dtype, labels (n,) are int64. Softmax, scale and
    accumulation are float32; a bf16 scale would bias all gradients. Backward may run only once.
    """
    chunk = max(1, chunk_bytes // (4 * weight.shape[0]))
    # Inside the autograd function gradients are off, and ctx.needs_input_grad ignores no_grad.
    needs = tuple(torch.is_grad_enabled() and x.requires_grad for x in (hidden, weight))
    return _LinearCrossEntropy.apply(hidden, weight, labels, scale, chunk, needs)


def install(model: torch.nn.Module) -> None:
    """Makes a causal language model return (``scale`` x sum of the token losses, the losses) for a
    packed micro-batch.

    Call ``model(input_ids, position_ids, supervised, labels, scale, **attention)``; see
    ``packing.Packed``.
    """

    def head(
        self: Any, hidden: torch.Tensor, labels: torch.Tensor, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return linear_cross_entropy(hidden, self.weight, labels, scale)

    def forward(
        self: Any,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        supervised: torch.Tensor,
        labels: torch.Tensor,
        scale: float,
        **attention: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.model(
            input_ids=input_ids, position_ids=position_ids, use_cache=False, **attention
        )
        return self.lm_head(hidden.last_hidden_state[0, supervised], labels, scale)

    model.lm_head.forward = MethodType(head, model.lm_head)
    model.forward = MethodType(forward, model)
