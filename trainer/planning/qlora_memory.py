"""Peak memory of a QLoRA's step on its one GPU, counted tensor by tensor.

The layers' matrices are in 4 bits, everything else of the base is in the compute dtype, and only
the adapters have gradients and moments. Activations are those of full-parameter training
(``memory``) and the adapters' own. A matrix is dequantised while it is multiplied.
"""

from __future__ import annotations

from trainer.batching.flops import Shape
from trainer.planning import memory
from trainer.planning.memory import FLOAT32, Lines, Setup

NF4 = 1 / 2 + 1 / 64 + FLOAT32 / (64 * 256)
"""Bytes of a weight in NF4: four bits, an 8-bit scale for each 64 weights, and a float32 scale for
each 256 of those scales (double quantisation).
"""
MOMENTS = 2 * (1 + FLOAT32 / 256)
"""Bytes per adapter weight of 8-bit AdamW's two moments, with a float32 scale for each block of
256.
"""


def base(shape: Shape, setup: Setup) -> float:
    """Returns the bytes of the frozen base: matrices in 4 bits, embeddings and norms in the compute
    dtype.
    """
    matrices = shape.layers * shape.layer_matmul_parameters
    return NF4 * matrices + setup.compute * (shape.parameters - matrices)


def peak(shape: Shape, setup: Setup) -> Lines:
    """Returns the lines at the moment of the peak, in a micro-step after the first."""
    adapters = shape.adapter_parameters
    resident = {
        "base in 4 bits": base(shape, setup),
        "adapters": FLOAT32 * adapters,
        "gradients": FLOAT32 * adapters,
        "optimizer state": MOMENTS * adapters,
        # Autocast keeps its copies of the adapters for the length of a forward.
        "adapters in bf16": 0.0 if setup.compute == FLOAT32 else setup.compute * adapters,
    }
    moments = _loss(shape, setup), _backward(shape, setup)
    return resident | max(moments, key=lambda lines: sum(lines.values()))


def _saved(shape: Shape, setup: Setup) -> float:
    """Returns the bytes per token that one layer keeps from forward to backward."""
    kept = memory.saved(shape, setup)
    return kept + (_adapter_bytes(shape, setup) if setup.checkpointing == "none" else 0)


def _adapter_bytes(shape: Shape, setup: Setup) -> float:
    """Returns the bytes per token that a layer's seven adapters save: the product with the first
    factor. Their inputs are saved already.
    """
    return setup.compute * 7 * shape.lora_rank


def _loss(shape: Shape, setup: Setup) -> Lines:
    """Returns the lines inside the head: as ``memory``'s, without a gradient of the head."""
    c, tokens = setup.compute, setup.tokens
    logits = min(setup.loss_chunk, FLOAT32 * shape.vocabulary * tokens)
    chunk = logits if c == FLOAT32 else logits * (1 + c / FLOAT32)
    final_norm = (FLOAT32 + c) * shape.hidden
    # The last hidden states, their supervised rows, the gradient of these.
    hidden = 3 * c * shape.hidden
    return {
        "saved activations": tokens
        * (shape.layers * _saved(shape, setup) + memory.positions(shape, setup) + final_norm),
        "loss": chunk + tokens * (hidden + FLOAT32),
    }


def _backward(shape: Shape, setup: Setup) -> Lines:
    """Returns the lines in the backward of the last layer's MLP: recomputed activations, their
    gradients, and the largest matrix in the compute dtype.
    """
    c, tokens = setup.compute, setup.tokens
    working = memory.recomputed(shape, setup) + c * (shape.hidden + 2 * shape.intermediate)
    if setup.checkpointing != "none":
        working += _adapter_bytes(shape, setup)
    return {
        "saved activations": tokens
        * (shape.layers * _saved(shape, setup) + memory.positions(shape, setup)),
        "layer in backward": tokens * working,
        "dequantised matrix": c * shape.hidden * shape.intermediate,
    }
