"""Computes the gradient of a chunk's logits in one compiled kernel.

The logits are read for their maximum and their sum of exponentials, read again, and overwritten by
their gradient: three passes, in their own dtype. ``loss._chunk`` computes the same with single
operators, in twelve passes, most of them in float32.
"""

from __future__ import annotations

import torch


@torch.compile(dynamic=True)
def differentiate(
    logits: torch.Tensor, label: torch.Tensor, scale: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Overwrites ``logits`` z (n, vocabulary) by ``scale`` (a number on their device) x the
    gradient of the cross entropy with ``label`` (n, 1).

    Returns max(z), sum(exp(z - max(z))) and z at the label, each (n, 1) in float32, in which
    everything is computed. The caller computes the rest: on a CPU, Inductor of torch 2.11 cannot
    fuse it.
    """
    z = logits.float()
    largest, own = z.amax(-1, keepdim=True), z.gather(1, label)
    total = (z - largest).exp().sum(-1, keepdim=True)
    share = (z - largest).exp() * (scale / total)
    places = torch.arange(z.shape[1], device=z.device)
    logits.copy_(torch.where(places == label, share - scale, share))
    return largest, total, own
