"""Peak memory of one rank in a training step, counted tensor by tensor.

The lifetimes of tensors follow PyTorch's FSDP2 (gather, reduce-scatter and reshard of one unit per
decoder layer, the tied embedding in the root unit, which stays gathered from forward to backward),
transformers' Qwen3 (what autograd saves) and ``trainer.engine.loss``. The peak is the largest of a
few named moments of a micro-step.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainer.batching.flops import Shape

GIB = 2**30
FLOAT32 = 4
"""Bytes of a float32: master weights, reduced gradients, optimizer state, norms, loss."""
LOSS_CHUNK = GIB
"""Equal to ``loss.CHUNK_BYTES``, but without importing torch."""
CONTEXT = 1.5 * GIB
"""Bytes of CUDA's context, cuBLAS's workspace and NCCL's buffers, outside PyTorch's allocator."""
FRAGMENTATION = 0.06
"""Memory that the caching allocator holds besides tensors, as a share of the tensors."""


@dataclass(frozen=True)
class Setup:
    """The layout of a step on the ranks."""

    ranks: int
    sequence_parallel: int
    tokens: int
    """Tokens of one micro-batch on one rank (train.max_tokens_per_gpu)."""
    checkpointing: str
    """train.checkpointing: none, selective or full."""
    offload: bool = False
    """Weights, gradients and optimizer state in host memory (verl.engine.offload_policy)."""
    compute: int = 2
    """Bytes of the compute dtype: 2 for bf16, 4 for fp32."""
    sdpa: bool = False
    """Attention is SDPA, not a varlen kernel: it repeats the KV heads and copies its output."""
    multi_tensor: bool = True
    """AdamW updates all parameters at once, as on CUDA; otherwise one by one."""
    fused: bool = False
    """AdamW is one kernel without temporary tensors (train.fused_optimizer)."""
    loss_chunk: int = LOSS_CHUNK
    """Bytes of float32 logits per chunk of the loss."""
    compiled: bool = False
    """Layers and loss are compiled (train.compile)."""
    liger: bool = False
    """Norms, rotary embedding and SwiGLU are Liger's kernels (train.liger)."""


Lines = dict[str, float]
"""Name of what holds memory -> bytes."""


def peak(shape: Shape, setup: Setup) -> Lines:
    """Returns the lines at the moment of one rank's peak, in a micro-step after the first."""
    return resident(shape, setup) | largest(_loss(shape, setup), *outside_head(shape, setup))


def resident(shape: Shape, setup: Setup) -> Lines:
    """Returns the lines that last for the whole step: float32 weights, gradients and moments."""
    state = 0.0 if setup.offload else FLOAT32 * shape.parameters / setup.ranks
    return {"weights": state, "gradients": state, "optimizer state": 2 * state}


def outside_head(shape: Shape, setup: Setup) -> tuple[Lines, ...]:
    """Returns the lines at each moment of a step except the one inside the head."""
    update = {"optimizer step": _update(shape, setup)}
    return *_backward(shape, setup), _end(shape, setup), update


def largest(*moments: Lines) -> Lines:
    """Returns the moment with the most memory."""
    return max(moments, key=lambda lines: sum(lines.values()))


def _update(shape: Shape, setup: Setup) -> float:
    """Returns the bytes of the second moments' square roots: of all parameters at once, or of the
    largest one.
    """
    if setup.fused:
        return 0.0
    parameters = shape.parameters if setup.multi_tensor else shape.embedding_parameters
    return 0.0 if setup.offload else FLOAT32 * parameters / setup.ranks


def on_gpu(lines: Lines) -> Lines:
    """Returns the lines plus the memory that a GPU needs besides tensors."""
    return lines | {"CUDA and NCCL": CONTEXT, "fragmentation": FRAGMENTATION * sum(lines.values())}


def layer_bytes(shape: Shape, setup: Setup) -> float:
    """Returns the bytes per token that autograd saves in one decoder layer; an upper bound if the
    layer is compiled.
    """
    c, q, kv = setup.compute, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    normed = 2 * shape.hidden + q + kv
    # The normed values are needed for the weight's gradient, which a frozen norm has not.
    unscaled = 0 if shape.lora_rank else c
    norms = (FLOAT32 + unscaled) * normed + FLOAT32 * (
        2 + shape.heads + shape.kv_heads
    )  # float32 input, normed, scales
    inputs = c * 2 * shape.hidden  # inputs of the attention's and the MLP's matmuls
    repeated = q if setup.sdpa else kv * max(1, setup.sequence_parallel // shape.kv_heads)
    copied = setup.sdpa or setup.sequence_parallel > 1
    attention = c * (q + 2 * repeated) + _attention_output(shape, setup) + c * q * copied
    return norms + inputs + attention + c * 4 * shape.intermediate


def _attention_output(shape: Shape, setup: Setup) -> float:
    """Returns the bytes per token of one layer's attention output and log-sum-exp."""
    return setup.compute * shape.heads * shape.head_dim + FLOAT32 * shape.heads


def saved(shape: Shape, setup: Setup) -> float:
    """Returns the bytes per token that one layer keeps from forward to backward."""
    if setup.checkpointing == "none":
        return layer_bytes(shape, setup)
    kept = _attention_output(shape, setup) if setup.checkpointing == "selective" else 0
    return setup.compute * shape.hidden + kept


def recomputed(shape: Shape, setup: Setup) -> float:
    """Returns the bytes per token that recomputing a layer adds; in fp32 its float32 input is the
    checkpoint itself.
    """
    if setup.checkpointing == "none":
        return 0
    kept = _attention_output(shape, setup) if setup.checkpointing == "selective" else 0
    shared = setup.compute * shape.hidden if setup.compute == FLOAT32 else 0
    return layer_bytes(shape, setup) - kept - shared


def positions(shape: Shape, setup: Setup) -> float:
    """Returns the bytes per token of cosines, sines, ids, position ids, supervised positions and
    labels.
    """
    return 2 * setup.compute * shape.head_dim + 4 * 8


def _units(shape: Shape, setup: Setup) -> tuple[float, float, float]:
    """Returns bytes in the compute dtype of (a gathered layer, the gathered head, the buffers of a
    gather besides its result).
    """
    layer = setup.compute * shape.layer_parameters
    head = setup.compute * shape.embedding_parameters
    return layer, head, 0.0 if setup.ranks == 1 else layer


def _loss(shape: Shape, setup: Setup) -> Lines:
    """Returns the lines inside the head, with all layers' activations saved.

    A chunk's logits are computed in the compute dtype and cast to float32; their gradient is cast
    back. The matrix products of that gradient run after the float32 logits are freed: the largest
    is a chunk's share of the head's gradient. Compiled, a chunk takes as many bytes, but holds only
    logits in the compute dtype, and the matmul adds to the head's gradient directly.
    """
    c, tokens = setup.compute, setup.tokens
    _, head, in_flight = _units(shape, setup)
    logits = min(setup.loss_chunk, FLOAT32 * shape.vocabulary * tokens)
    cast = 0 if c == FLOAT32 else logits * c / FLOAT32
    weight_gradient = FLOAT32 * shape.embedding_parameters
    chunk = logits if c == FLOAT32 else cast + max(logits, head)
    if setup.compiled and c != FLOAT32:
        most = setup.loss_chunk * (FLOAT32 + c) / FLOAT32
        chunk = min(most, c * shape.vocabulary * tokens)
    final_norm, hidden = (
        (FLOAT32 + c) * shape.hidden,
        2 * c * shape.hidden,
    )  # 2: the output and its supervised rows
    return {
        "saved activations": tokens
        * (shape.layers * saved(shape, setup) + positions(shape, setup) + final_norm),
        "loss": weight_gradient + chunk + tokens * (hidden + c * shape.hidden + FLOAT32),
        "gathered weights": head + (in_flight if shape.tied or setup.ranks == 1 else head),
    }


def _backward(shape: Shape, setup: Setup) -> tuple[Lines, Lines]:
    """Returns the lines in the backward of the last layer's MLP, and of the MLP one layer
    before.
    """
    c, tokens = setup.compute, setup.tokens
    layer, head, in_flight = _units(shape, setup)
    kept = saved(shape, setup)
    working = recomputed(shape, setup) + c * (shape.hidden + 2 * shape.intermediate)
    down = c * shape.hidden * shape.intermediate
    gathered = layer + in_flight + (head if shape.tied else 0)
    waiting = head if shape.tied else 0.0

    def lines(layers: int, reducing: float) -> Lines:
        return {
            "saved activations": tokens * (layers * kept + positions(shape, setup)),
            "layer in backward": tokens * working,
            "gathered weights": gathered,
            "gradients in flight": down + waiting + reducing,
        }

    after_head = 0 if shape.tied else FLOAT32 * shape.embedding_parameters
    return lines(shape.layers, after_head), lines(
        shape.layers - 1, FLOAT32 * shape.layer_parameters
    )


def _end(shape: Shape, setup: Setup) -> Lines:
    """Returns the lines of the embedding's gradient: in its computation (with the head's if tied)
    or reduce-scatter.
    """
    _, head, _ = _units(shape, setup)
    reducing = head + FLOAT32 * shape.embedding_parameters * (1 + 1 / setup.ranks)
    computing = head * (3 if shape.tied else 2) + FLOAT32 * shape.layer_parameters
    return {"gradients in flight": max(reducing, computing)}
