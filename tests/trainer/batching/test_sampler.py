"""Every row once an epoch; what cannot be trained is named."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from common.errors import UserError
from trainer.batching import sampler


@given(st.integers(1, 200), st.integers(1, 33), st.integers(1, 3), st.integers(0, 5))
def test_every_row_is_trained_once_an_epoch(rows: int, batch: int, epochs: int, seed: int) -> None:
    steps = sampler.steps_per_epoch(rows, batch)
    for epoch in range(epochs):
        seen = [
            r for s in range(steps) for r in sampler.step_rows(epoch * steps + s, rows, batch, seed)
        ]
        assert sorted(seen) == list(range(rows))
        assert len(sampler.step_rows(epoch * steps + steps - 1, rows, batch, seed)) == (
            rows % batch or batch
        )


def test_epochs_and_seeds_differ() -> None:
    orders = {
        tuple(sampler.epoch_order(50, seed, epoch)) for seed in range(3) for epoch in range(3)
    }
    assert len(orders) == 9


@pytest.mark.parametrize(
    ("longest", "ranks", "degree", "words"),
    [
        (100, 2, 1, None),
        (101, 2, 1, "the longest row has 101 tokens and a micro-batch holds 100"),
        (200, 4, 2, None),
        (10, 6, 4, "train.sequence_parallel=4 does not divide the 6 ranks"),
        (10, 5, 1, "train.batch_size=4 leaves some of the 5 data-parallel groups without rows"),
        (10, 8, 2, None),
    ],
)
def test_what_cannot_be_trained_is_named(
    longest: int, ranks: int, degree: int, words: str | None
) -> None:
    settings = OmegaConf.create(
        {"sequence_parallel": degree, "max_tokens_per_gpu": 100, "batch_size": 4}
    )
    if words is None:
        sampler.check_fits([3, longest], settings, ranks)
        return
    with pytest.raises(UserError, match=re.escape(words)):
        sampler.check_fits([3, longest], settings, ranks)
