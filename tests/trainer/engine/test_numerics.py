"""The engine, packed and sharded, against plain transformers in fp32, one sequence at a time,
without verl.
"""

import math
from typing import Any

import pytest
import torch

from tests.conftest import STEPS_BEFORE_STOP, Line, lines
from trainer.batching import sampler
from trainer.batching.dataset import TokenDataset
from trainer.recipe import load as configs

STEPS = 20
TOLERANCE = 1e-4


def learning_rate(step: int, total: int, train: Any) -> float:
    """Linear warmup, then a cosine from lr to min_lr_ratio * lr; ``step`` counts from 1."""
    warmup = int(train.warmup_ratio * total)
    if step < warmup:
        return train.lr * step / warmup
    progress = (step - warmup) / (total - warmup)
    return train.lr * (
        train.min_lr_ratio + (1 - train.min_lr_ratio) * (1 + math.cos(math.pi * progress)) / 2
    )


@pytest.fixture(scope="module")
def reference(line: Line) -> list[dict[str, float]]:
    """Loss, gradient norm and learning rate of the line's first steps, computed the plain way."""
    from transformers import AutoModelForCausalLM

    config = configs.read(line.run / "config.yaml")
    train, data = config.train, TokenDataset(line.data / "tokens" / "train.arrow")
    total = sampler.steps_per_epoch(len(data), train.batch_size) * train.epochs
    model = AutoModelForCausalLM.from_pretrained(line.run / "base", dtype=torch.float32)
    optimizer = torch.optim.AdamW(
        model.parameters(), betas=tuple(train.betas), weight_decay=train.weight_decay
    )
    steps = []
    for step in range(STEPS):
        items = [
            data[int(row)]
            for row in sampler.step_rows(step, len(data), train.batch_size, train.seed)
        ]
        supervised = sum(int(item["loss_mask"].sum()) for item in items)
        loss = 0.0
        for item in items:
            ids, first = item["input_ids"], int((item["loss_mask"] == 0).sum())
            logits = model(ids[None]).logits[0]
            part = (
                torch.nn.functional.cross_entropy(
                    logits[first - 1 : -1], ids[first:], reduction="sum"
                )
                / supervised
            )
            part.backward()
            loss += part.item()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), train.clip_grad)
        rate = learning_rate(step + 1, total, train)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
        steps.append({"loss": loss, "grad_norm": norm.item(), "lr": rate})
    return steps


def test_twenty_steps_have_the_same_loss_as_plain_transformers(
    line: Line, reference: list[dict]
) -> None:
    """The run was stopped and resumed within these steps, so this holds for the resume too."""
    ours = lines(line.run / "metrics.jsonl")[:STEPS]
    first_attempt = lines(line.run / "attempts" / "1" / "metrics.jsonl")
    assert STEPS_BEFORE_STOP <= len(first_attempt) < ours[0]["total"]
    assert [s["step"] for s in ours] == list(range(1, STEPS + 1))
    for mine, theirs in zip(ours, reference, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], abs=TOLERANCE), mine["step"]
        assert mine["lr"] == pytest.approx(theirs["lr"], rel=1e-9), mine["step"]
    assert ours[0]["grad_norm"] == pytest.approx(reference[0]["grad_norm"], rel=1e-4)


def test_the_last_step_of_an_epoch_is_smaller_and_every_row_counts_once(line: Line) -> None:
    data = TokenDataset(line.data / "tokens" / "train.arrow")
    train = configs.read(line.run / "config.yaml").train
    steps = lines(line.run / "metrics.jsonl")
    per_epoch = math.ceil(len(data) / train.batch_size)
    assert len(data) % train.batch_size != 0
    assert len(steps) == steps[-1]["total"] == train.epochs * per_epoch
    for epoch in range(train.epochs):
        mine = steps[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert sum(s["tokens"] for s in mine) == sum(data.lengths)
        assert mine[-1]["tokens"] < mine[0]["tokens"]
