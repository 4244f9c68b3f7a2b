"""Compiles the decoder layers: norms, rotary embedding and SwiGLU become a few kernels each.

torch compiles each part of a layer once for all layers and all lengths; on a GPU perhaps twice,
because Inductor may choose other kernels for a norm's backward on few tokens. Attention is not
compiled: its arguments differ for each packing. With activation checkpointing the down projection
is not compiled either: recomputation stops at its input, the last tensor that backward needs, and
cannot stop inside a compiled graph.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch.nn.functional import linear


@torch.compiler.disable
def _projected(self: Any, x: torch.Tensor) -> torch.Tensor:
    return linear(x, self.weight, self.bias)


def compile_layers(model: torch.nn.Module, recomputed: bool) -> None:
    """Compiles the layers of a Qwen3 in place; ``recomputed`` if they are checkpointed."""
    layers: Any = model.model.layers
    for layer in layers:
        if recomputed:
            layer.mlp.down_proj.forward = MethodType(_projected, layer.mlp.down_proj)
        layer.compile(dynamic=True)
