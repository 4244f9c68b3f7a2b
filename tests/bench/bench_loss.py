"""Memory and time of the head's loss: chunked against torch's cross entropy on full logits.

    python -m tests.bench.bench_loss [CASES]      (default all)

Peak bytes of live tensors over one forward and backward, above the inputs. The weight's gradient,
which both hold, is left out, so that what remains is what tokens cost. Ours holds one chunk of
logits whatever the vocabulary. The time is the faster of two runs, after the one whose memory is
followed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from itertools import product

import torch
from torch.nn.functional import cross_entropy, linear

from tests.bench.table import Result, publish
from tests.trainer.planning.footprint import LiveBytes
from trainer.engine.loss import linear_cross_entropy

HIDDEN = 256
TOKENS = (512, 1024, 2048)
VOCABULARIES = (8_000, 32_000, 128_000)
CHUNK_BYTES = 2**27
"""A chunk for these sizes; training's is larger as its tokens are more."""

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def chunked(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return linear_cross_entropy(hidden, weight, labels, chunk_bytes=CHUNK_BYTES)[0]


def plain(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return cross_entropy(linear(hidden, weight), labels, reduction="sum")


def measure(loss: Loss, tokens: int, vocabulary: int) -> tuple[float, float]:
    """(seconds of forward and backward, peak GB beyond the inputs and the weight's gradient)."""
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(tokens, HIDDEN, generator=generator, requires_grad=True)
    weight = torch.randn(vocabulary, HIDDEN, generator=generator).mul_(0.02).requires_grad_()
    labels = torch.randint(0, vocabulary, (tokens,), generator=generator)
    with LiveBytes() as live:
        loss(hidden, weight, labels).backward()
    seconds = []
    for _ in range(2):
        hidden.grad = weight.grad = None
        begin = time.perf_counter()
        loss(hidden, weight, labels).backward()
        seconds.append(time.perf_counter() - begin)
    return min(seconds), (live.peak - live.held - weight.nbytes) / 1e9


def main() -> None:
    results = []
    cases = list(product(VOCABULARIES, TOKENS))
    for vocabulary, tokens in cases[: int(sys.argv[1])] if len(sys.argv) > 1 else cases:
        case = f"{tokens} x {vocabulary}"
        (seconds, memory), (plain_seconds, plain_memory) = (
            measure(loss, tokens, vocabulary) for loss in (chunked, plain)
        )
        results += [
            Result(case, "peak memory", "GB", memory, plain_memory, "full logits"),
            Result(case, "time", "s", seconds, plain_seconds, "full logits"),
        ]
    publish("bench-loss", results)


if __name__ == "__main__":
    main()
