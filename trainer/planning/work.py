"""Work of a micro-step on a GPU: FLOPs of matmuls and attention, memory traffic of all other
kernels, and how many kernels a layer launches.

Traffic is counted kernel by kernel, each reading its inputs and writing its output once, for
transformers' Qwen3, its autograd graph, ``trainer.engine.loss`` and torch's AdamW; for layers that
are eager, compiled (the kernels that Inductor plans), or have Liger's kernels. Matmuls and
attention are compute-bound, so their own traffic is left out. ``tests/cuda`` compares these figures
with the operators of real steps and with Inductor's plans; Liger's are from reading its kernels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainer.batching.flops import Shape
from trainer.planning.memory import FLOAT32, Setup
from trainer.planning.qlora_memory import NF4

COMPUTED_AGAIN = {"none": (0, 0), "selective": (1, 0), "full": (1, 1)}
"""train.checkpointing -> how often backward recomputes (a layer's matmuls and other kernels, its
attention).
"""
KERNELS = {"eager": (54, 105), "compiled": (14, 30), "liger": (16, 34)}
"""Kernels of a layer's (forward, backward): 8 and 15 are matmuls and attention. Liger has one per
norm, one for the rotation and one for SwiGLU; backward also sums each norm's weight gradient.
"""


@dataclass(frozen=True)
class Work:
    """One pass of one rank over micro-batches, as arrays with an entry per micro-batch."""

    matmul: np.ndarray
    """FLOPs of matmuls."""
    attention: np.ndarray
    """FLOPs of attention scores."""
    traffic: np.ndarray
    """Bytes read and written by all other kernels."""
    kernels: int = 0
    """Number of kernels; 0 where they are few and large."""


def forward(shape: Shape, setup: Setup, tokens: np.ndarray, pairs: np.ndarray) -> Work:
    """Returns one layer's forward on ``tokens`` tokens and ``pairs`` (query, key) pairs of a
    rank.
    """
    return Work(
        matmul=2 * (shape.layer_matmul_parameters + _adapter(shape)) * tokens,
        attention=4 * shape.heads * shape.head_dim * pairs,
        traffic=forward_bytes(shape, setup) * tokens + _dequantised(shape, setup),
        kernels=KERNELS[_how(setup)][0],
    )


def backward(shape: Shape, setup: Setup, tokens: np.ndarray, pairs: np.ndarray) -> Work:
    """Returns one layer's backward with recomputation; attention's counts twice its forward, as in
    ``flops``.
    """
    once, again = forward(shape, setup, tokens, pairs), recomputed(shape, setup, tokens, pairs)
    # A frozen matrix has no gradient of its own.
    frozen = 2 * shape.layer_matmul_parameters * tokens if shape.lora_rank else 0
    return Work(
        matmul=2 * once.matmul - frozen + again.matmul,
        attention=2 * once.attention + again.attention,
        traffic=backward_bytes(shape, setup) * tokens + _dequantised(shape, setup) + again.traffic,
        kernels=KERNELS[_how(setup)][1] + again.kernels,
    )


def _adapter(shape: Shape) -> int:
    """Returns the number of adapter weights of one layer."""
    return shape.adapter_parameters // shape.layers


def _dequantised(shape: Shape, setup: Setup) -> float:
    """Returns the bytes that dequantising a layer's matrices moves; 0 without adapters."""
    each = NF4 + setup.compute if shape.lora_rank else 0.0
    return each * shape.layer_matmul_parameters


def recomputed(shape: Shape, setup: Setup, tokens: np.ndarray, pairs: np.ndarray) -> Work:
    """Returns the recomputation in one layer's backward.

    torch's checkpoint stops once it has all saved tensors: before the down projection and the last
    residual sum.
    """
    once = forward(shape, setup, tokens, pairs)
    layer, attention = COMPUTED_AGAIN[setup.checkpointing]
    down = 2 * shape.hidden * shape.intermediate
    return Work(
        matmul=layer * (once.matmul - down * tokens),
        attention=attention * once.attention,
        traffic=layer * (once.traffic - 3 * setup.compute * shape.hidden * tokens),
        kernels=layer * once.kernels,
    )


def loss(shape: Shape, setup: Setup, tokens: np.ndarray) -> Work:
    """Returns the work of the head with its loss and gradients (``trainer.engine.loss``), every
    token supervised.

    Per chunk the logits are cast, their maximum found and subtracted, exponentiated, summed, scaled
    and cast back; compiled, they are read twice and overwritten once. The head's gradient is
    zeroed, summed over chunks in float32 (compiled or with fp32, the matmul itself accumulates),
    and cast.
    """
    c, chunks = setup.compute, np.ceil(tokens * FLOAT32 * shape.vocabulary / setup.loss_chunk)
    cast, summed = (0, 0) if c == FLOAT32 else (FLOAT32 + c, 2 * FLOAT32 + c)
    logits = (1 + 2 + 2 + 1 + 2) * FLOAT32 + 2 * cast
    if setup.compiled:
        logits, summed = 3 * c, 0
    matrix = 0 if shape.lora_rank else summed * chunks + FLOAT32 + cast
    return Work(
        matmul=(4 if shape.lora_rank else 6) * shape.embedding_parameters * tokens,
        attention=0 * tokens,
        traffic=logits * shape.vocabulary * tokens + matrix * shape.embedding_parameters,
    )


def log_probs(shape: Shape, setup: Setup, tokens: np.ndarray) -> Work:
    """Returns the work of the head in verl's pass for old log-probabilities, in the compute dtype.

    The cross entropy reads the logits. The entropy casts them to float32, takes softmax (two
    reads, one write) and log-sum-exp (maximum; difference; exponential; sum), multiplies and sums.
    """
    c = setup.compute
    cross_entropy, cast = 2 * c, FLOAT32 + c
    entropy = (3 + (1 + 2 + 2 + 1) + 3 + 1) * FLOAT32
    return Work(
        matmul=2 * shape.embedding_parameters * tokens,
        attention=0 * tokens,
        traffic=(cross_entropy + cast + entropy) * shape.vocabulary * tokens,
    )


def ends(shape: Shape, setup: Setup, tokens: np.ndarray) -> Work:
    """Returns forward and backward of what runs once per micro-batch: embedding, last norm, loss
    scale; not the head.

    In backward the head's gradient is scaled, the embedding's is filled, and if they are tied the
    two are added. The embedded tokens, the supervised ones, their gradients and the zeros that
    these are written into are copies.
    """
    c, copies = setup.compute, 11 * setup.compute
    per_token = (_norm_forward(setup) + _norm_backward(setup) + copies) * shape.hidden
    matrix = 0 if shape.lora_rank else (2 + 3 if shape.tied else 2) * c
    return Work(
        matmul=0 * tokens,
        attention=0 * tokens,
        traffic=per_token * tokens + matrix * shape.embedding_parameters,
    )


def _how(setup: Setup) -> str:
    """Returns how a layer's norms, rotary embedding and SwiGLU are computed: a key of
    ``KERNELS``.
    """
    return "compiled" if setup.compiled else "liger" if setup.liger else "eager"


def forward_bytes(shape: Shape, setup: Setup) -> float:
    """Returns the bytes per token of a layer's forward: norms, rotary embedding, SwiGLU, two
    residual sums.

    Rotary embedding multiplies by cosines, rotates (negates one half and concatenates), multiplies
    by sines, and adds. SwiGLU is SiLU and a product. Compiled, these are six kernels: a norm, the
    norm and rotation of queries and of keys, a residual sum with the second norm, SwiGLU, and the
    other sum.
    """
    if setup.compiled or setup.liger:
        return _fused_forward(shape, setup) + _exchanged(shape, setup)
    c, rotated, normed = setup.compute, _rotated(shape), 2 * shape.hidden + _rotated(shape)
    rotary = (2 + 1 + 2 + 2 + 3) * c * rotated
    swiglu = (2 + 3) * c * shape.intermediate
    return (
        _norm_forward(setup) * normed
        + rotary
        + swiglu
        + 2 * 3 * c * shape.hidden
        + _exchanged(shape, setup)
    )


def backward_bytes(shape: Shape, setup: Setup) -> float:
    """Returns the bytes per token of a layer's backward, without recomputation.

    Gradients are summed five times: two at the residuals, two where queries, keys and values meet,
    one where gate and up do. The backward of the rotation fills two halves with zeros and adds
    them; the gradients are made contiguous for the norms. Compiled, a kernel sums the gradients of
    queries, keys and values at once, and the norms' kernels add the residual's.
    """
    if setup.compiled or setup.liger:
        return _fused_backward(shape, setup) + _exchanged(shape, setup)
    c, rotated, normed = setup.compute, _rotated(shape), 2 * shape.hidden + _rotated(shape)
    rotary = (2 + 2 + 1 + 2 * 1.5 + 3 + 3 + 2) * c * rotated
    swiglu = (2 * 3 + 3) * c * shape.intermediate
    return (
        _norm_backward(setup) * normed
        + rotary
        + swiglu
        + 5 * 3 * c * shape.hidden
        + _exchanged(shape, setup)
    )


def _fused_forward(shape: Shape, setup: Setup) -> float:
    """Returns ``forward_bytes`` without exchanges, for kernels that keep nothing between two steps
    of a norm, a rotation or SwiGLU. Norms write their scales in float32.
    """
    c, rotated = setup.compute, _rotated(shape)
    scales = FLOAT32 * (2 + shape.heads + shape.kv_heads)
    swiglu, angles = 3 * c * shape.intermediate, 2 * 2 * c * shape.head_dim
    # Liger normalises and rotates in two kernels, and its norms add no residual.
    hidden, turns = (9, 2) if setup.compiled else (2 * 2 + 2 * 3, 2 + 2)
    return hidden * c * shape.hidden + turns * c * rotated + angles + swiglu + scales


def _fused_backward(shape: Shape, setup: Setup) -> float:
    """Returns ``backward_bytes`` without exchanges and recomputation, for the kernels of
    ``_fused_forward``.

    A norm's backward reads gradient and input and writes the input's gradient, a rotation's reads
    and writes one tensor, SwiGLU's reads three and writes two. Compiled, the second norm adds the
    residual's gradient; gate's and up's are summed by it where nothing is recomputed, else by a
    kernel of their own.
    """
    c, rotated = setup.compute, _rotated(shape)
    scales, angles = FLOAT32 * (2 + shape.heads + shape.kv_heads), 2 * 2 * c * shape.head_dim
    swiglu, values = 5 * c * shape.intermediate, 2 * c * shape.kv_heads * shape.head_dim
    summed = 15 if setup.checkpointing == "none" else 17
    hidden = summed if setup.compiled else 2 * 3 + 5 * 3
    return hidden * c * shape.hidden + 5 * c * rotated + angles + swiglu + values + scales


def optimizer_bytes(setup: Setup) -> float:
    """Returns the bytes per parameter of clipping and AdamW in float32: reading for the norm,
    clipping, the update.

    The fused kernel reads weight, gradient and moments and writes all but the gradient; torch's
    multi-tensor AdamW takes ten kernels, which move 20 numbers.
    """
    return FLOAT32 * (1 + 2 + (7 if setup.fused else 20))


def _rotated(shape: Shape) -> int:
    """Returns the number of elements of one token's queries and keys."""
    return (shape.heads + shape.kv_heads) * shape.head_dim


def _norm_forward(setup: Setup) -> float:
    """Returns the bytes per element of RMSNorm: cast up, square, mean, scale, cast down, multiply
    by the weight.
    """
    c = setup.compute
    cast = 0 if c == FLOAT32 else 2 * (FLOAT32 + c)
    return (2 + 1 + 2) * FLOAT32 + 2 * c + cast


def _norm_backward(setup: Setup) -> float:
    """Returns the bytes per element of RMSNorm's backward.

    Kernels for the weight: its product, its gradient and the sum of that over tokens. Then the two
    branches of the scale: one multiplies, sums, divides by the width and differentiates the square
    in three kernels; both are added.
    """
    c = setup.compute
    cast = 0 if c == FLOAT32 else 2 * (FLOAT32 + c)
    return (2 + 3 + 1) * c + (2 + 3 + 1 + 1 + 2 + 2 + 3 + 3) * FLOAT32 + cast


def _exchanged(shape: Shape, setup: Setup) -> float:
    """Returns the bytes per token of the copies around Ulysses' exchanges, in one direction."""
    if setup.sequence_parallel == 1:
        return 0.0
    copies = max(1, setup.sequence_parallel // shape.kv_heads)
    query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    return 2 * setup.compute * (2 * query + 2 * key * copies)
