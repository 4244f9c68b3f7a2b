"""The chunked loss against torch's own on full logits."""

import math
import os
import shutil
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from trainer.engine.loss import linear_cross_entropy

COMPILER = shutil.which(os.environ.get("CXX", "g++"))
TOKENS, HIDDEN, VOCABULARY = 37, 16, 101
MEANS = 1e-5
"""Relative tolerance of a sum of losses, entropies or correct tokens in fp32."""
BF16 = 0.02
"""Bound in bf16: relative of the entropy, absolute of the accuracy."""


@pytest.fixture
def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(TOKENS, HIDDEN, generator=generator, requires_grad=True)
    weight = torch.randn(VOCABULARY, HIDDEN, generator=generator, requires_grad=True)
    return hidden, weight, torch.randint(0, VOCABULARY, (TOKENS,), generator=generator)


@pytest.mark.parametrize(
    ("tokens_a_chunk", "fused"), [(1, False), (5, False), (37, False), (1000, False), (5, True)]
)
def test_losses_and_gradients_are_those_of_full_logits(
    inputs: tuple, tokens_a_chunk: int, fused: bool
) -> None:
    _need_compiler(fused)
    hidden, weight, labels = inputs
    total, losses, _ = linear_cross_entropy(
        hidden, weight, labels, 0.3, 4 * VOCABULARY * tokens_a_chunk, fused
    )
    mine = torch.autograd.grad(total, (hidden, weight))
    plain = cross_entropy(hidden @ weight.T, labels, reduction="none")
    theirs = torch.autograd.grad(plain.sum() * 0.3, (hidden, weight))
    torch.testing.assert_close(losses, plain.detach(), rtol=1e-6, atol=1e-6)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def _need_compiler(fused: bool) -> None:
    if fused and COMPILER is None:
        pytest.skip("THE COMPILED LOSS IS NOT CHECKED HERE: it needs a C++ compiler, install g++")


def test_the_compiled_loss_in_bf16_is_the_eager_one() -> None:
    """Only the weight's gradient differs: its sums over other chunks are rounded to eight bits."""
    _need_compiler(True)
    hidden, weight, labels = sharp(4.0, 32, 1000, 300)
    found = []
    for fused in (False, True):
        leaves = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        total, losses, sums = linear_cross_entropy(*leaves, labels, 0.01, 4 * 1000 * 40, fused)
        found.append((losses, sums, *torch.autograd.grad(total, leaves)))
    for mine, theirs in zip(*found, strict=True):
        assert mine.dtype == theirs.dtype
        assert (mine - theirs).float().norm() <= 2**-8 * theirs.float().norm()


def test_no_tokens_give_a_zero_loss_and_zero_gradients(inputs: tuple) -> None:
    hidden, weight, labels = inputs
    total, _, sums = linear_cross_entropy(hidden[:0], weight, labels[:0])
    grad = torch.autograd.grad(total, weight)[0]
    assert total.item() == 0 and not grad.any() and not sums.any()


def test_bf16_accumulates_in_float32() -> None:
    """The weight's gradient from 512 chunks is that of one chunk, which a bf16 sum over them is
    not.
    """
    generator = torch.Generator().manual_seed(4)
    hidden = torch.randn(512, HIDDEN, generator=generator).bfloat16()
    weight = torch.randn(VOCABULARY, HIDDEN, generator=generator).bfloat16().requires_grad_()
    labels = torch.randint(0, VOCABULARY, (512,), generator=generator)
    one, many = (
        torch.autograd.grad(
            linear_cross_entropy(hidden, weight, labels, chunk_bytes=size)[0], weight
        )[0].float()
        for size in (2**30, 4 * VOCABULARY)
    )
    assert (one - many).norm() / one.norm() < 2.5e-3


def test_without_gradients_none_are_computed(inputs: tuple) -> None:
    hidden, weight, labels = inputs
    with torch.no_grad():
        total, losses, _ = linear_cross_entropy(hidden, weight, labels)
    assert not total.requires_grad
    torch.testing.assert_close(
        losses, cross_entropy(hidden @ weight.T, labels, reduction="none").detach()
    )


def test_the_largest_tensor_does_not_grow_with_the_tokens() -> None:
    """Nothing of tokens x vocabulary is made, forward or backward."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            out = func(*args, **(kwargs or {}))
            for x in out if isinstance(out, tuple | list) else [out]:
                if isinstance(x, torch.Tensor):
                    self.elements = max(self.elements, x.numel())
            return out

    def largest(tokens: int) -> int:
        hidden, weight = (
            torch.randn(tokens, 8, requires_grad=True),
            torch.randn(5000, 8, requires_grad=True),
        )
        with Largest() as mode:
            linear_cross_entropy(
                hidden, weight, torch.zeros(tokens, dtype=torch.int64), 1.0, 4 * 5000 * 10
            )[0].backward()
        return mode.elements

    assert largest(100) == largest(2000) == 50_000


def plain_sums(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(3,) sums of losses, entropies and correct tokens from full logits in float64."""
    logits = hidden.detach().double() @ weight.detach().double().T
    log_shares = logits.log_softmax(-1)
    return torch.stack(
        [
            cross_entropy(logits, labels, reduction="sum"),
            -(log_shares.exp() * log_shares).sum(),
            (logits.argmax(-1) == labels).sum(),
        ]
    )


def sharp(spread: float, hidden: int, vocabulary: int, tokens: int) -> tuple[torch.Tensor, ...]:
    """bf16 hidden states and weights whose logits have the standard deviation ``spread``, and
    labels drawn from the model.
    """
    generator = torch.Generator().manual_seed(7)
    weight = torch.randn(vocabulary, hidden, generator=generator) * spread / hidden**0.5
    states = torch.randn(tokens, hidden, generator=generator)
    states, weight = states.bfloat16(), weight.bfloat16()
    shares = (states.float() @ weight.float().T).softmax(-1)
    return states, weight, torch.multinomial(shares, 1, generator=generator).squeeze(1)


@pytest.mark.parametrize("trained", ["both", "hidden", "weight", "none"])
@pytest.mark.parametrize(("scale", "tokens_a_chunk"), [(1.0, 1000), (0.3, 5), (1e-6, 37)])
@pytest.mark.parametrize("spread", [0.5, 4.0, 16.0])
def test_entropy_and_accuracy_are_those_of_full_logits(
    spread: float, scale: float, tokens_a_chunk: int, trained: str
) -> None:
    """Full training, adapters on a frozen head, a head alone, and a validation."""
    hidden, weight, labels = sharp(spread, 64, VOCABULARY, 200)
    hidden, weight = hidden.float(), weight.float()
    hidden.requires_grad_(trained in ("both", "hidden"))
    weight.requires_grad_(trained in ("both", "weight"))
    size = 4 * VOCABULARY * tokens_a_chunk
    _, losses, sums = linear_cross_entropy(hidden, weight, labels, scale, size)
    expected = plain_sums(hidden, weight, labels)
    assert not sums.requires_grad and 0 < expected[2] < len(labels)
    torch.testing.assert_close(sums.double(), expected.double(), rtol=MEANS, atol=0)
    assert sums[0] == pytest.approx(losses.sum().item(), rel=MEANS)


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("spread", [3.0, 12.0, 30.0])
def test_entropy_and_accuracy_in_bf16_are_within_their_bound(spread: float, trained: bool) -> None:
    """From 4.4 to 0.2 nats."""
    hidden, weight, labels = sharp(spread, 256, 4000, 512)
    expected = plain_sums(hidden, weight, labels) / len(labels)
    sums = linear_cross_entropy(
        hidden.requires_grad_(trained), weight.requires_grad_(trained), labels, 1 / 512, 2**20
    )[2]
    _, entropy, accuracy = (sums.double() / len(labels)).tolist()
    assert entropy == pytest.approx(expected[1].item(), rel=BF16)
    assert 0 <= accuracy - expected[2].item() <= BF16


def test_a_tie_with_the_largest_logit_is_correct(inputs: tuple) -> None:
    hidden, weight, labels = inputs
    sums = linear_cross_entropy(torch.zeros_like(hidden), weight.detach(), labels)[2]
    assert sums[2] == TOKENS
    assert sums[1] == pytest.approx(TOKENS * math.log(VOCABULARY), rel=MEANS)
