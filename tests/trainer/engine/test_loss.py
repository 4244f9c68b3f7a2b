"""The chunked loss against torch's own on full logits."""

from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from trainer.engine.loss import linear_cross_entropy

TOKENS, HIDDEN, VOCABULARY = 37, 16, 101


@pytest.fixture
def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(TOKENS, HIDDEN, generator=generator, requires_grad=True)
    weight = torch.randn(VOCABULARY, HIDDEN, generator=generator, requires_grad=True)
    return hidden, weight, torch.randint(0, VOCABULARY, (TOKENS,), generator=generator)


@pytest.mark.parametrize("tokens_a_chunk", [1, 5, 37, 1000])
def test_losses_and_gradients_are_those_of_full_logits(inputs: tuple, tokens_a_chunk: int) -> None:
    hidden, weight, labels = inputs
    total, losses, _ = linear_cross_entropy(
        hidden, weight, labels, 0.3, 4 * VOCABULARY * tokens_a_chunk
    )
    mine = torch.autograd.grad(total, (hidden, weight))
    plain = cross_entropy(hidden @ weight.T, labels, reduction="none")
    theirs = torch.autograd.grad(plain.sum() * 0.3, (hidden, weight))
    torch.testing.assert_close(losses, plain.detach(), rtol=1e-6, atol=1e-6)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


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
