"""The engine's loss is the mean over supervised tokens, whatever the packing; broken pieces are noticed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from data_prep import vocabulary
from trainer import config as configs
from trainer import loop, models

LENGTHS = ((30, 10), (7, 3), (55, 20), (12, 11), (41, 5))
"""(tokens, prompt tokens) of each row."""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("engine")
    overrides = [f"run.root={folder}/runs", f"data.dir={folder}/data", "train.ranks=1"]
    config = configs.load("tiny", overrides)
    vocabulary.trained(["some text"]).save_pretrained(str(Path(config.verl.model.tokenizer_path)))
    models.materialise(config)
    return config


@pytest.fixture(scope="module")
def engine(config: Any) -> Iterator[Any]:
    import torch.distributed as dist

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield loop.build_engine(config, total_steps=10)
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def rows() -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(5)
    made = []
    for length, prompt in LENGTHS:
        mask = torch.ones(length, dtype=torch.int64)
        mask[:prompt] = 0
        ids = torch.randint(0, 250, (length,), generator=generator)
        made.append({"input_ids": ids, "position_ids": torch.arange(length), "loss_mask": mask})
    return made


SUPERVISED = sum(length - prompt for length, prompt in LENGTHS)


@pytest.fixture(scope="module")
def plain_loss(config: Any, rows: list[dict[str, torch.Tensor]]) -> float:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(config.model.path, dtype=torch.float32)
    total = 0.0
    with torch.no_grad():
        for row, (_, prompt) in zip(rows, LENGTHS, strict=True):
            logits = model(row["input_ids"][None]).logits[0]
            total += torch.nn.functional.cross_entropy(
                logits[prompt - 1 : -1], row["input_ids"][prompt:], reduction="sum"
            ).item()
    return total / SUPERVISED


def loss(engine: Any, plan: list[list[int]], rows: list[dict[str, torch.Tensor]]) -> float:
    from functools import partial

    from verl.workers.utils.losses import sft_loss

    batches = [engine._micro_batch([rows[i] for i in micro], SUPERVISED) for micro in plan]
    with engine.eval_mode():
        return engine.forward_backward_batch(batches, partial(sft_loss, None), forward_only=True).item()


@pytest.mark.parametrize(
    "plan", [[[0], [1], [2], [3], [4]], [[4, 3, 2, 1, 0]], [[0, 2], [1, 3, 4]], [[0, 1, 2, 3, 4], []]]
)
def test_loss_does_not_depend_on_the_packing(engine: Any, rows: Any, plain_loss: float, plan: Any) -> None:
    assert loss(engine, plan, rows) == pytest.approx(plain_loss, abs=1e-5)


def test_rows_that_see_each_other_are_noticed(engine: Any, rows: Any, plain_loss: float) -> None:
    """The same rows with positions that run on, so that attention takes them for one document."""
    ends = torch.tensor([length for length, _ in LENGTHS]).cumsum(0).tolist()
    joined = [row | {"position_ids": row["position_ids"] + end} for row, end in zip(rows, [0, *ends], strict=False)]
    assert abs(loss(engine, [[0, 1, 2, 3, 4]], joined) - plain_loss) > 1e-3


def test_a_mask_off_by_one_is_noticed(engine: Any, rows: Any, plain_loss: float) -> None:
    shifted = [row | {"loss_mask": torch.roll(row["loss_mask"], -1)} for row in rows]
    assert abs(loss(engine, [[0, 1, 2, 3, 4]], shifted) - plain_loss) > 1e-3


def test_a_rank_without_rows_adds_nothing(engine: Any, rows: Any) -> None:
    assert loss(engine, [[]], rows) == 0.0
