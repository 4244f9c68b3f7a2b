"""``train.deterministic``: the engine sets it, and the attention kernels are called with it."""

import os
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import AttentionInterface

from trainer.engine import attention, determinism

HEADS, KV_HEADS, DIM, TOKENS = 4, 2, 16, 12


@pytest.fixture(params=[True, False], ids=["deterministic", "fast"])
def deterministic(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[bool]:
    """The setting, in force during a test."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    determinism.choose(request.param)
    yield request.param
    determinism.choose(False)


def attend(backend: str) -> None:
    """Runs forward and backward of two packed documents through transformers' attention
    interface.
    """
    q, k, v = (
        torch.randn(1, heads, TOKENS, DIM, requires_grad=True)
        for heads in (HEADS, KV_HEADS, KV_HEADS)
    )
    attention_function = AttentionInterface()[attention.name(backend)]
    out, _ = attention_function(
        torch.nn.Module(),
        q,
        k,
        v,
        None,
        scaling=0.25,
        cu_seq_lens_q=torch.tensor([0, 5, TOKENS], dtype=torch.int32),
        max_length_q=7,
    )
    out.sum().backward()
    assert q.grad is not None


def test_flash_attn_is_told(deterministic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def flash_attn_varlen_func(
        q: torch.Tensor, *_: Any, deterministic: bool = False, **__: Any
    ) -> torch.Tensor:
        asked.append(deterministic)
        return q * 1

    module = ModuleType("flash_attn")
    vars(module)["flash_attn_varlen_func"] = flash_attn_varlen_func
    monkeypatch.setitem(sys.modules, "flash_attn", module)
    attend("flash_attn")
    assert asked == [deterministic]


def test_varlen_runs_its_backward_under_the_setting(
    deterministic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's kernel takes its deterministic form where the setting is on and no mere warning."""
    in_force = []

    def forward(q: torch.Tensor, *_: Any, **__: Any) -> Any:
        empty = torch.empty(0)
        return q * 1, q.new_zeros(q.shape[1], q.shape[0], dtype=torch.float32), empty, empty, empty

    def backward(_: torch.Tensor, *inputs: Any, **__: Any) -> Any:
        only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
        in_force.append(torch.are_deterministic_algorithms_enabled() and not only_warns)
        return tuple(torch.zeros_like(x) for x in inputs[:3])

    monkeypatch.setattr(torch.ops.aten, "_flash_attention_forward", forward)
    monkeypatch.setattr(torch.ops.aten, "_flash_attention_backward", backward)
    attend("varlen")
    assert in_force == [deterministic]


def test_cublas_is_made_deterministic_too(deterministic: bool) -> None:
    assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == (":4096:8" if deterministic else None)
    assert not torch.utils.deterministic.fill_uninitialized_memory
