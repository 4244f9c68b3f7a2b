"""What a micro-step asks of a GPU: FLOPs of matmuls and attention, memory traffic of everything between them.

Traffic is counted kernel by kernel, each reading its inputs and writing its output once, for transformers' eager Qwen3,
its autograd graph, ``trainer.engine.loss`` and torch's AdamW. Matmuls and attention compute for longer than
they move bytes, so their own traffic is left out. ``tests/cuda`` holds these figures to the operators of real steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainer.batching.flops import Shape
from trainer.planning.memory import FLOAT32, Setup

COMPUTED_AGAIN = {"none": (0, 0), "selective": (1, 0), "full": (1, 1)}
"""train.checkpointing -> how often backward computes (a layer's matmuls and kernels, its attention) again."""


@dataclass(frozen=True)
class Work:
    """One pass of one rank over micro-batches: arrays of their shape."""

    matmul: np.ndarray
    """FLOPs."""
    attention: np.ndarray
    """FLOPs."""
    traffic: np.ndarray
    """Bytes."""


def forward(shape: Shape, setup: Setup, tokens: np.ndarray, pairs: np.ndarray) -> Work:
    """One layer's forward on ``tokens`` tokens and ``pairs`` (query, key) pairs of a rank."""
    return Work(
        matmul=2 * shape.layer_matmul_parameters * tokens,
        attention=4 * shape.heads * shape.head_dim * pairs,
        traffic=forward_bytes(shape, setup) * tokens,
    )


def backward(shape: Shape, setup: Setup, tokens: np.ndarray, pairs: np.ndarray) -> Work:
    """One layer's backward, with what it computes again; attention's counts twice its forward, as in ``flops``."""
    once, again = forward(shape, setup, tokens, pairs), recomputed(shape, setup, tokens, pairs)
    return Work(
        matmul=2 * once.matmul + again.matmul,
        attention=2 * once.attention + again.attention,
        traffic=backward_bytes(shape, setup) * tokens + again.traffic,
    )


def recomputed(shape: Shape, setup: Setup, tokens: np.ndarray, pairs: np.ndarray) -> Work:
    """What one layer's backward computes again.

    torch's checkpoint stops where everything saved is there: before the down projection and the last residual sum.
    """
    once = forward(shape, setup, tokens, pairs)
    layer, attention = COMPUTED_AGAIN[setup.checkpointing]
    down = 2 * shape.hidden * shape.intermediate
    return Work(
        matmul=layer * (once.matmul - down * tokens),
        attention=attention * once.attention,
        traffic=layer * (once.traffic - 3 * setup.compute * shape.hidden * tokens),
    )


def loss(shape: Shape, setup: Setup, tokens: np.ndarray) -> Work:
    """The head with its loss and gradients (``trainer.engine.loss``), every token supervised.

    A chunk's logits are cast, searched for the largest, reduced by it, exponentiated, summed, scaled and cast back.
    The head's gradient is zeroed, summed over the chunks in float32 (in fp32 the product itself does that), and cast.
    """
    c, chunks = setup.compute, np.ceil(tokens * FLOAT32 * shape.vocabulary / setup.loss_chunk)
    cast, summed = (0, 0) if c == FLOAT32 else (FLOAT32 + c, 2 * FLOAT32 + c)
    logits = (1 + 2 + 2 + 1 + 2) * FLOAT32 + 2 * cast
    matrix = summed * chunks + FLOAT32 + cast
    return Work(
        matmul=6 * shape.embedding_parameters * tokens,
        attention=0 * tokens,
        traffic=logits * shape.vocabulary * tokens + matrix * shape.embedding_parameters,
    )


def ends(shape: Shape, setup: Setup, tokens: np.ndarray) -> Work:
    """Forward and backward of what a micro-batch passes once besides the head: embedding, last norm, loss's scale.

    In backward the head's gradient is scaled, the embedding's is filled, and where they are tied both are added. The
    embedded tokens, those that are supervised, their gradients and the zeros these are put into are copies.
    """
    c, copies = setup.compute, 11 * setup.compute
    per_token = (_norm_forward(setup) + _norm_backward(setup) + copies) * shape.hidden
    matrix = (2 + 3 if shape.tied else 2) * c
    return Work(
        matmul=0 * tokens,
        attention=0 * tokens,
        traffic=per_token * tokens + matrix * shape.embedding_parameters,
    )


def forward_bytes(shape: Shape, setup: Setup) -> float:
    """One layer's forward for one token: norms, rotary embedding, SwiGLU (SiLU and a product), two residual sums.

    Rotary embedding multiplies by cosines, turns (negates one half and joins both), multiplies by sines, and adds.
    """
    c, rotated, normed = setup.compute, _rotated(shape), 2 * shape.hidden + _rotated(shape)
    rotary = (2 + 1 + 2 + 2 + 3) * c * rotated
    swiglu = (2 + 3) * c * shape.intermediate
    return _norm_forward(setup) * normed + rotary + swiglu + 2 * 3 * c * shape.hidden + _exchanged(shape, setup)


def backward_bytes(shape: Shape, setup: Setup) -> float:
    """One layer's backward for one token, without what it computes again.

    Five sums of gradients: two at the residuals, two where queries, keys and values meet, one where gate and up do.
    Turning back fills two halves with zeros and adds them; the gradients are laid out anew for the norms.
    """
    c, rotated, normed = setup.compute, _rotated(shape), 2 * shape.hidden + _rotated(shape)
    rotary = (2 + 2 + 1 + 2 * 1.5 + 3 + 3 + 2) * c * rotated
    swiglu = (2 * 3 + 3) * c * shape.intermediate
    return _norm_backward(setup) * normed + rotary + swiglu + 5 * 3 * c * shape.hidden + _exchanged(shape, setup)


def optimizer_bytes(setup: Setup) -> float:
    """Clipping and AdamW for one parameter, all in float32: the norm's reading, the clip, then one kernel or several.

    The fused kernel reads weight, gradient and moments and writes all but the gradient; torch's multi-tensor AdamW
    makes ten kernels of it, which move 20 numbers.
    """
    return FLOAT32 * (1 + 2 + (7 if setup.fused else 20))


def _rotated(shape: Shape) -> int:
    """Numbers of one token's queries and keys."""
    return (shape.heads + shape.kv_heads) * shape.head_dim


def _norm_forward(setup: Setup) -> float:
    """RMSNorm for one number: cast up, square, mean, scale, cast down, weigh."""
    c = setup.compute
    cast = 0 if c == FLOAT32 else 2 * (FLOAT32 + c)
    return (2 + 1 + 2) * FLOAT32 + 2 * c + cast


def _norm_backward(setup: Setup) -> float:
    """Its backward: the weight's product, its gradient and the sum of that over tokens; the two branches of the scale.

    The scale's branch multiplies, sums, divides by the width, and takes the square back in three kernels; then both
    are added.
    """
    c = setup.compute
    cast = 0 if c == FLOAT32 else 2 * (FLOAT32 + c)
    return (2 + 3 + 1) * c + (2 + 3 + 1 + 1 + 2 + 2 + 3 + 3) * FLOAT32 + cast


def _exchanged(shape: Shape, setup: Setup) -> float:
    """Copies around Ulysses' exchanges for one token, in one direction."""
    if setup.sequence_parallel == 1:
        return 0.0
    copies = max(1, setup.sequence_parallel // shape.kv_heads)
    query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    return 2 * setup.compute * (2 * query + 2 * key * copies)
