"""Causal attention over packed documents, with Ulysses sequence parallelism, for transformers.

Packed documents do not attend to each other. Under sequence parallelism a rank holds a slice of the
tokens with all heads; inside attention it holds all tokens with a share of the heads (Jacobs et al.
2023, DeepSpeed Ulysses). verl's exchange works only with flash-attn and uses an operation that gloo
lacks; this one serves every backend.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.nn.functional import all_to_all_single
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from verl.utils.ulysses import get_ulysses_sequence_parallel_group

from common.errors import UserError

BACKENDS = ("flash_attn", "varlen", "sdpa")


def name(backend: str) -> str:
    """Returns the ``attn_implementation`` name under which ``backend`` is registered with
    transformers.
    """
    return f"packed_{backend}"


def choose(wanted: str, device: str, precision: str) -> str:
    """Returns the backend for ``train.attention``; ``auto`` selects the fastest installed one that
    supports ``precision``.

    Raises UserError when flash-attn is asked for and is not installed.
    """
    has_flash = importlib.util.find_spec("flash_attn") is not None
    if wanted == "auto":
        if device == "cpu" or precision == "fp32":
            return "sdpa"
        return "flash_attn" if has_flash else "varlen"
    if wanted == "flash_attn" and not has_flash:
        raise UserError(
            "flash-attn is not installed: FLASH_ATTN=1 make setup-gpu, or set train.attention=auto"
        )
    return wanted


def check_dropout(backend: str, dropout: float) -> None:
    """Raises UserError when the model has attention_dropout and ``backend`` does not implement
    it.
    """
    if dropout and backend == "varlen":
        raise UserError(
            f"torch's varlen_attn has no dropout, and the model has attention_dropout={dropout}: "
            "set train.attention=flash_attn or sdpa, or attention_dropout=0 in the model's "
            "config.json"
        )


def kernels(backend: str) -> list[Any]:
    """Returns the operators of ``backend``'s attention whose outputs selective activation
    checkpointing saves.
    """
    ops = torch.ops
    if backend == "flash_attn":
        importlib.import_module("flash_attn")  # registers its operators
        return [ops.flash_attn._flash_attn_varlen_forward.default]
    if backend == "varlen":
        importlib.import_module("torch.nn.attention.varlen")  # registers its operator
        return [ops.torch_attn._varlen_attn.default]
    return [
        ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
        ops.aten._scaled_dot_product_flash_attention.default,
        ops.aten._scaled_dot_product_efficient_attention.default,
        ops.aten._scaled_dot_product_cudnn_attention.default,
    ]


def to_heads(x: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """Exchanges (tokens, heads, dim) on each rank to (tokens x ranks, heads / ranks, dim), tokens
    in rank order.
    """
    ranks = dist.get_world_size(group)
    tokens, heads, dim = x.shape
    parts = x.reshape(tokens, ranks, heads // ranks, dim).transpose(0, 1).contiguous()
    return all_to_all_single(torch.empty_like(parts), parts, group=group).reshape(
        tokens * ranks, heads // ranks, dim
    )


def to_tokens(x: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """Exchanges (tokens, heads, dim) to (tokens / ranks, heads x ranks, dim): the inverse of
    ``to_heads``.
    """
    ranks = dist.get_world_size(group)
    tokens, heads, dim = x.shape
    parts = x.reshape(ranks, tokens // ranks, heads, dim).contiguous()
    received = all_to_all_single(torch.empty_like(parts), parts, group=group)
    return received.transpose(0, 1).reshape(tokens // ranks, heads * ranks, dim)


def _flash_attn(
    q: Any, k: Any, v: Any, scale: float, cu_seqlens: Any, longest: int, dropout: float
) -> torch.Tensor:
    from flash_attn import flash_attn_varlen_func

    return flash_attn_varlen_func(
        q,
        k,
        v,
        cu_seqlens,
        cu_seqlens,
        longest,
        longest,
        dropout,
        softmax_scale=scale,
        causal=True,
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )


def _varlen(
    q: Any, k: Any, v: Any, scale: float, cu_seqlens: Any, longest: int, dropout: float
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    assert dropout == 0  # ``check_dropout`` has refused it
    return varlen_attn(
        q, k, v, cu_seqlens, cu_seqlens, longest, longest, scale=scale, window_size=(-1, 0)
    )


def _sdpa(
    q: Any, k: Any, v: Any, scale: float, cu_seqlens: Any, _: int, dropout: float
) -> torch.Tensor:
    """Calls SDPA once per document.

    KV heads are repeated because the memory-efficient kernels need equal head counts. The lengths
    are read on the host: free on the CPU, a synchronisation on a GPU, where ``auto`` selects this
    backend only for fp32.
    """
    lengths = cu_seqlens.diff().tolist()
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    parts = (x.transpose(0, 1).unsqueeze(0).split(lengths, dim=2) for x in (q, k, v))
    out = [
        scaled_dot_product_attention(
            query, key, value, dropout_p=dropout, is_causal=True, scale=scale
        )
        for query, key, value in zip(*parts, strict=True)
    ]
    return torch.cat(out, dim=2).squeeze(0).transpose(0, 1)


def _packed(backend: Callable[..., torch.Tensor]) -> Callable[..., tuple[torch.Tensor, None]]:
    @torch.compiler.disable  # a compiled layer would recompile for every packing
    def attend(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: None,
        *,
        scaling: float,
        cu_seq_lens_q: torch.Tensor,
        max_length_q: int,
        dropout: float = 0.0,
        **_: Any,
    ) -> tuple[torch.Tensor, None]:
        """Maps query (1, heads, tokens, dim), key and value (1, kv heads, tokens, dim) to (1,
        tokens, heads, dim).
        """
        assert mask is None
        q, k, v = (x.squeeze(0).transpose(0, 1) for x in (query, key, value))
        group = get_ulysses_sequence_parallel_group()
        if group is None:
            out = backend(q, k, v, scaling, cu_seq_lens_q, max_length_q, dropout)
        else:
            # With fewer KV heads than ranks, each KV head is sent to several ranks.
            copies = max(1, dist.get_world_size(group) // k.shape[1])
            k, v = (x.repeat_interleave(copies, dim=1) for x in (k, v))
            q, k, v = (to_heads(x, group) for x in (q, k, v))
            out = to_tokens(backend(q, k, v, scaling, cu_seq_lens_q, max_length_q, dropout), group)
        return out.unsqueeze(0), None

    return attend


for _name, _backend in zip(BACKENDS, (_flash_attn, _varlen, _sdpa), strict=True):
    AttentionInterface.register(name(_name), _packed(_backend))
