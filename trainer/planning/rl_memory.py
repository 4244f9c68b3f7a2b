"""Memory of one GPU in GRPO with verl's trainer and vLLM on the same GPUs, counted by tensor.

The two take turns (verl 0.9.1). While vLLM generates, the trainer's sharded weights and moments
stay unless they are offloaded; its gradients are freed after each step. While the trainer computes,
vLLM sleeps: weights and cache are gone, its process stays. verl's ``param_offload`` and
``optimizer_offload`` bring everything back for the update, so they make room for vLLM only;
``offload_policy`` (FSDP2's) keeps the state on the host for good.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainer.batching.flops import Shape
from trainer.planning import memory
from trainer.planning.memory import CONTEXT, FLOAT32, GIB, Lines, Setup

BF16 = 2
"""Bytes of a bfloat16: verl's rollouts, their cache, and the trainer's logits."""
RESERVE = 2 * GIB
"""Bytes left free at every moment, for memory that is not counted. With it the highest share for
vLLM that fits on A100-40s is 0.8 on 16 GPUs and 0.6 on 4, for 4B without offload.
"""
VLLM_WORKING = 2 * GIB
"""Bytes of vLLM's share besides weights and cache: activations of a batch of 8,192 tokens, CUDA
graphs, its process's context. Assumed; with it verl's default share of 0.5 leaves 3.5 rollouts of
21K tokens on an A100-40.
"""
VLLM_ASLEEP = 1.5 * GIB
"""Bytes that a sleeping vLLM keeps: context, CUDA graphs, communication buffers. Assumed."""
ENTROPY_CHUNK = 2048
"""verl's entropy_from_logits_chunk_size, in tokens."""
ENTROPY_COPIES = 2
"""Copies of the float32 logits that entropy holds at once: the softmax, and its product with the
logits or the terms of log-sum-exp.
"""


@dataclass(frozen=True)
class RlSetup:
    """verl's settings that decide memory and time."""

    training: Setup
    """The update's: ``tokens`` is ppo_max_token_len_per_gpu, ``offload`` the offload_policy."""
    log_prob_tokens: int
    """log_prob_max_token_len_per_gpu."""
    tensor_parallel: int
    """GPUs of one vLLM engine."""
    utilization: float
    """gpu_memory_utilization: vLLM's share of the GPU's memory."""
    param_offload: bool = False
    optimizer_offload: bool = False
    chunked_entropy: bool = True
    """entropy_from_logits_with_chunking."""
    scaled_logits: bool = False
    """The temperature is not 1: verl divides the logits into a copy."""


def cache_bytes(shape: Shape, tensor_parallel: int = 1) -> float:
    """Returns the bytes of one token in the cache, per GPU: a key and a value in bf16 for each
    layer and KV head. More GPUs than KV heads hold copies.
    """
    heads = max(1, shape.kv_heads / tensor_parallel)
    return 2 * BF16 * shape.layers * heads * shape.head_dim


def rollout_weights(shape: Shape, tensor_parallel: int = 1) -> float:
    """Returns the bytes of vLLM's bf16 weights, per GPU."""
    return BF16 * shape.parameters / tensor_parallel


def cache_tokens(shape: Shape, setup: RlSetup, gpu: float) -> float:
    """Returns the tokens that one engine's cache holds on GPUs of ``gpu`` bytes: what its share
    leaves after weights and ``VLLM_WORKING``.
    """
    degree = setup.tensor_parallel
    left = setup.utilization * gpu - rollout_weights(shape, degree) - VLLM_WORKING
    return max(0.0, left) / cache_bytes(shape, degree)


def generation(shape: Shape, setup: RlSetup, gpu: float) -> Lines:
    """Returns the lines while vLLM generates: what stays of the trainer (4 bytes per weight of
    parameters and 8 of moments, over all GPUs), and vLLM's share.
    """
    state = memory.resident(shape, setup.training)
    return {
        "weights": 0.0 if setup.param_offload else state["weights"],
        "optimizer state": 0.0 if setup.optimizer_offload else state["optimizer state"],
        "CUDA and NCCL": CONTEXT,
        "vLLM": setup.utilization * gpu,
    }


def training(shape: Shape, setup: RlSetup) -> Lines:
    """Returns the lines at the trainer's peak, in the pass for old log-probabilities or in the
    update.
    """
    state = memory.resident(shape, setup.training)
    kept = {name: state[name] for name in ("weights", "optimizer state")}
    if setup.optimizer_offload:
        del kept["optimizer state"]
    passing = kept | log_prob_head(shape, setup)
    moments = (_update_head(shape, setup), *memory.outside_head(shape, setup.training))
    lines = memory.largest(passing, state | memory.largest(*moments))
    return memory.on_gpu(lines) | {"vLLM asleep": VLLM_ASLEEP}


def logits(shape: Shape, setup: RlSetup, tokens: int) -> float:
    """Returns the bytes of a micro-batch's logits: verl holds those of all of its tokens, in bf16,
    and once more if a temperature divides them.
    """
    return BF16 * shape.vocabulary * tokens * (2 if setup.scaled_logits else 1)


def entropy(shape: Shape, setup: RlSetup) -> float:
    """Returns the bytes that entropy adds to the logits in the pass for old log-probabilities.

    Under autocast softmax and its product with the logits are float32: eager, of all tokens; in
    chunks, of ``ENTROPY_CHUNK`` tokens, whose logits are cast too.
    """
    if not setup.chunked_entropy:
        return ENTROPY_COPIES * FLOAT32 * shape.vocabulary * setup.log_prob_tokens
    tokens = min(ENTROPY_CHUNK, setup.log_prob_tokens)
    return (ENTROPY_COPIES + 1) * FLOAT32 * shape.vocabulary * tokens


def log_prob_head(shape: Shape, setup: RlSetup) -> Lines:
    """Returns the lines inside the head without gradients."""
    tokens = setup.log_prob_tokens
    return {
        "hidden states": BF16 * shape.hidden * tokens,
        "logits": logits(shape, setup, tokens),
        "entropy": entropy(shape, setup),
        "gathered weights": BF16 * shape.embedding_parameters,
    }


def _update_head(shape: Shape, setup: RlSetup) -> Lines:
    """Returns the lines inside the head of the update, with all layers' activations saved.

    flash-attn's cross entropy writes the logits' gradient over the logits. Of it follows the
    head's gradient, in bf16.
    """
    step = setup.training
    saved = shape.layers * memory.saved(shape, step) + memory.positions(shape, step)
    normed = (FLOAT32 + BF16) * shape.hidden
    head = BF16 * shape.embedding_parameters
    return {
        "saved activations": step.tokens * (saved + normed),
        "logits": logits(shape, setup, step.tokens),
        "gradients in flight": head + BF16 * shape.hidden * step.tokens,
        "gathered weights": head,
    }
