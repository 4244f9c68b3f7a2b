"""Memory and time of the head's loss: chunked against torch's cross entropy on full logits.

    python -m tests.bench.bench_loss [CASES]      (default all)

Peak bytes of live tensors over one forward and backward, above the inputs. The weight's gradient,
which both hold, is left out, so that what remains is what tokens cost. Ours holds one chunk of
logits whatever the vocabulary. The time is the faster of two runs, after the one whose memory is
followed.

The last row of a case is what entropy and token accuracy cost: processor seconds with their sums
over those without, each the least of ``REPEATS`` runs in turns. Processor time, because other work
on the machine changes a run's time by far more than the sums do.
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
from trainer.engine import loss as losses
from trainer.engine.loss import linear_cross_entropy

HIDDEN = 256
TOKENS = (512, 1024, 2048)
VOCABULARIES = (8_000, 32_000, 128_000)
CHUNK_BYTES = 2**27
"""A chunk for these sizes; training's is larger as its tokens are more."""

REPEATS = 7
SIGNALS = 1.02
"""Limit of the processor time with entropy and token accuracy over the time without."""

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def chunked(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return linear_cross_entropy(hidden, weight, labels, chunk_bytes=CHUNK_BYTES)[0]


def plain(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return cross_entropy(linear(hidden, weight), labels, reduction="sum")


def inputs(tokens: int, vocabulary: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random hidden states, weight and labels."""
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(tokens, HIDDEN, generator=generator, requires_grad=True)
    weight = torch.randn(vocabulary, HIDDEN, generator=generator).mul_(0.02).requires_grad_()
    return hidden, weight, torch.randint(0, vocabulary, (tokens,), generator=generator)


def measure(loss: Loss, tokens: int, vocabulary: int) -> tuple[float, float]:
    """(seconds of forward and backward, peak GB beyond the inputs and the weight's gradient)."""
    hidden, weight, labels = inputs(tokens, vocabulary)
    with LiveBytes() as live:
        loss(hidden, weight, labels).backward()
    seconds = [timed(loss, hidden, weight, labels) for _ in range(2)]
    return min(seconds), (live.peak - live.held - weight.nbytes) / 1e9


def timed(loss: Loss, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> float:
    """Seconds of one forward and backward."""
    hidden.grad = weight.grad = None
    begin = time.perf_counter()
    loss(hidden, weight, labels).backward()
    return time.perf_counter() - begin


def cost_of_signals(tokens: int, vocabulary: int) -> float:
    """Processor time of the chunked loss with the sums of entropies and correct tokens over that
    without.
    """
    made, sums = inputs(tokens, vocabulary), losses._sums
    nothing = torch.zeros(3)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    timed(chunked, *made)
    for _ in range(REPEATS):
        for wanted, found in seconds.items():
            losses._sums = sums if wanted else lambda *_: nothing
            begin = time.process_time()
            timed(chunked, *made)
            found.append(time.process_time() - begin)
    losses._sums = sums
    return min(seconds[True]) / min(seconds[False])


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
            Result(
                case, "time with signals", "x", cost_of_signals(tokens, vocabulary), limit=SIGNALS
            ),
        ]
    publish("bench-loss", results)


if __name__ == "__main__":
    main()
