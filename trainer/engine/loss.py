"""Chunked cross entropy of a linear head: memory grows with tokens, not with tokens x vocabulary.

verl's fused kernels fail on FSDP2 with an untied head. Here the head returns the loss from its own
forward, where FSDP2 has gathered its weights, tied or not.

Beside the loss it returns the entropy H of the model's distribution p = softmax(z), in nats, and
whether the label's logit is the largest. For one token with logits z = W h and label y:

    loss = logsumexp(z) - z_y               H = -sum_i p_i log p_i = logsumexp(z) - p.z
    h.(dloss/dh) = z.(dloss/dz) = p.z - z_y             hence H = loss - h.(dloss/dh)

A step computes dloss/dh anyway, so H costs it a product of two (n, hidden size) tensors; a
validation has no gradient and takes another pass over the logits. A head with a bias would break
this. bf16 rounds the logits and the gradient: from 0.2 nats upwards the mean entropy is within 2 %
of float32's on the same hidden states and weights. bf16 logits also tie, and a tie with the largest
counts as correct, so the accuracy is up to 2 points higher than with float32.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch

from trainer.engine import fused_loss
from trainer.engine.stopwatch import Stopwatch

CHUNK_BYTES = 2**30
"""Bytes of float32 logits per chunk; a bf16 copy takes half of that in addition."""


def _chunk(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    label: torch.Tensor,
    scale: float,
    needs_gradient: bool,
    fused: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Returns the losses (n,) in float32; whether the label's logit is the largest (n,); the
    entropies (n,) in float32; and ``scale`` x the losses' gradient by the logits, in the dtype of
    ``weight``.

    With ``needs_gradient`` the entropies are None, without it the gradient is. The float32 logits
    are freed on return: the matrix products of the gradient need the memory.
    """
    logits = hidden @ weight.T
    if fused and needs_gradient:
        factor = torch.full((), scale, dtype=torch.float32, device=logits.device)
        largest, total, own = fused_loss.differentiate(logits, label, factor)
        return *_at_labels(largest, total, own), None, logits
    logits = logits.float()
    largest, own = logits.amax(-1, keepdim=True), logits.gather(1, label)
    total = logits.sub_(largest).exp_().sum(-1, keepdim=True)
    losses, correct = _at_labels(largest, total, own)
    if not needs_gradient:
        shares = logits.div_(total)
        return losses, correct, torch.special.entr(shares, out=shares).sum(-1), None
    # scale x (softmax - one-hot), in place of the logits and still in float32.
    gradient = logits.mul_(scale / total)
    gradient.scatter_add_(1, label, gradient.new_full((1, 1), -scale).expand_as(label))
    return losses, correct, None, gradient.to(weight.dtype)


def _at_labels(
    largest: torch.Tensor, total: torch.Tensor, own: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the losses (n,) and whether the label's logit is the largest (n,)."""
    return (largest + total.log() - own).squeeze(1), (own >= largest).squeeze(1)


def _add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor, fused: bool) -> None:
    """Adds ``left @ right`` to ``total``, which is float32; with ``fused`` inside the matmul also
    where the factors are bf16, on CUDA.
    """
    if right.dtype == torch.float32:
        total.addmm_(left, right)
    elif fused and right.is_cuda:
        torch.addmm(total, left, right, out_dtype=torch.float32, out=total)
    else:
        total += left @ right


def _sums(
    losses: torch.Tensor,
    correct: torch.Tensor,
    entropies: torch.Tensor | None,
    hidden: torch.Tensor,
    gradient: torch.Tensor | None,
    scale: float,
) -> torch.Tensor:
    """Returns the sums (3,) of losses, entropies and correct tokens in float32.

    Without ``entropies`` they follow from ``gradient``, ``scale`` x the losses' gradient by
    ``hidden`` (n, d).
    """
    loss = losses.sum()
    if entropies is not None:
        entropy = entropies.sum()
    else:
        assert gradient is not None
        entropy = loss - (hidden.float() * gradient).sum() / scale
    return torch.stack([loss, entropy, correct.sum(dtype=torch.float32)])


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
        fused: bool,
        needs: Any,
    ) -> Any:
        needs_gradient, needs_weight = any(needs), needs[1]
        losses = hidden.new_empty(len(labels), dtype=torch.float32)
        sums = hidden.new_zeros(3, dtype=torch.float32)
        grad_hidden = torch.empty_like(hidden) if needs_gradient else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_weight else None
        for start in range(0, len(labels), chunk):
            part = slice(start, start + chunk)
            losses[part], correct, entropies, gradient = _chunk(
                hidden[part], weight, labels[part, None], scale, needs_gradient, fused
            )
            by_hidden = None if grad_hidden is None else grad_hidden[part]
            if gradient is not None and by_hidden is not None:
                torch.mm(gradient, weight, out=by_hidden)
            if gradient is not None and grad_weight is not None:
                _add_product(grad_weight, gradient.T, hidden[part], fused)
            del gradient  # frees its memory before the next chunk's logits
            sums += _sums(losses[part], correct, entropies, hidden[part], by_hidden, scale)
        ctx.save_for_backward(
            grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype)
        )
        ctx.mark_non_differentiable(losses, sums)
        return losses.sum() * scale, losses, sums

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        factor = grad_outputs[0]
        return (
            *(None if g is None else g.mul_(factor.to(g.dtype)) for g in ctx.saved_tensors),
            *[None] * 5,
        )


def linear_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    scale: float = 1.0,
    chunk_bytes: int = CHUNK_BYTES,
    fused: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns ``scale`` x the sum of the losses; the losses (n,); and the sums (3,) of losses,
    entropies (nats) and correct tokens. All are float32; only the first one has a gradient, and
    only it is scaled.

    The loss is the cross entropy of ``hidden @ weight.T`` against ``labels``: hidden (n, d) and
    weight (vocabulary, d) have the same floating dtype, labels (n,) are int64. Softmax, scale and
    accumulation are float32; a bf16 scale would bias all gradients. Backward may run only once.
    ``fused`` takes compiled kernels (``fused_loss``) where there is a gradient.
    """
    chunk = max(1, chunk_bytes // (4 * weight.shape[0]))
    # Inside the autograd function gradients are off, and ctx.needs_input_grad ignores no_grad.
    needs = tuple(torch.is_grad_enabled() and x.requires_grad for x in (hidden, weight))
    if fused and any(needs) and weight.dtype != torch.float32:
        # Without the float32 logits their memory holds three times as many.
        chunk *= (4 + weight.itemsize) // weight.itemsize
    return _LinearCrossEntropy.apply(hidden, weight, labels, scale, chunk, fused, needs)


def install(model: torch.nn.Module, stopwatch: Stopwatch, fused: bool) -> None:
    """Makes a causal language model return what ``linear_cross_entropy`` does, for a packed
    micro-batch. ``stopwatch`` times it in training.

    Call ``model(input_ids, position_ids, supervised, labels, scale, **attention)``; see
    ``packing.Packed``.
    """

    def head(
        self: Any, hidden: torch.Tensor, labels: torch.Tensor, scale: float
    ) -> tuple[torch.Tensor, ...]:
        if not torch.is_grad_enabled():
            return linear_cross_entropy(hidden, self.weight, labels, scale)
        with stopwatch.lap():
            return linear_cross_entropy(hidden, self.weight, labels, scale, fused=fused)

    def forward(
        self: Any,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        supervised: torch.Tensor,
        labels: torch.Tensor,
        scale: float,
        **attention: Any,
    ) -> tuple[torch.Tensor, ...]:
        hidden = self.model(
            input_ids=input_ids, position_ids=position_ids, use_cache=False, **attention
        )
        return self.lm_head(hidden.last_hidden_state[0, supervised], labels, scale)

    model.lm_head.forward = MethodType(head, model.lm_head)
    model.forward = MethodType(forward, model)
