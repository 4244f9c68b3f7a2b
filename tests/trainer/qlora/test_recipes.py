"""The QLoRA recipes: their steps and trained weights, from their values alone, and the settings
that they refuse.
"""

from dataclasses import replace

import pytest

from common.errors import UserError
from trainer.batching import sampler
from trainer.batching.flops import training_flops
from trainer.doctor.disk import needed_bytes
from trainer.doctor.forecast import look
from trainer.loop import launcher
from trainer.planning.planner import Planner
from trainer.planning.workload import KNOWN
from trainer.recipe import load as configs
from trainer.run.folder import Run

QWEN3_4B = replace(KNOWN["Qwen/Qwen3-4B-Base"], lora_rank=32)


def test_the_4b_recipe_is_the_published_one() -> None:
    config = configs.load("qlora_gsm8k_4b", ["data.source=rows.jsonl"])
    train = config.train
    per_epoch = sampler.steps_per_epoch(config.data.train_rows, train.batch_size)
    assert (config.data.train_rows, per_epoch, train.epochs * per_epoch) == (34_818, 2177, 6531)
    assert (config.model.path, config.data.max_length, train.max_tokens_per_gpu) == (
        "Qwen/Qwen3-4B",
        4096,
        4096,
    )
    assert (train.lora_rank, train.lora_alpha, train.lr, train.warmup_steps) == (32, 32, 2e-4, 10)
    assert (train.min_lr_ratio, train.clip_grad, train.seed, train.precision) == (
        0,
        1.0,
        42,
        "bf16",
    )
    assert configs.load("qlora_gsm8k_8b", ["data.source=rows.jsonl"]).data.train_rows == 50_000


def test_66_million_of_the_4bs_weights_are_trained() -> None:
    assert QWEN3_4B.adapter_parameters == 66_060_288
    assert (
        round(QWEN3_4B.adapter_parameters / (QWEN3_4B.parameters + QWEN3_4B.adapter_parameters), 4)
        == 0.0162
    )


def test_the_doctor_counts_the_adapters_of_a_checkpoint_and_the_whole_of_an_export() -> None:
    config = configs.load("qlora_gsm8k_4b", ["data.source=rows.jsonl"])
    outlook, _ = look(config, Run.of(config))
    assert outlook.shape is not None and outlook.shape.parameters == QWEN3_4B.parameters
    saves, kept = 3, min(3, config.train.keep_last + config.train.keep_best) + 1
    assert needed_bytes(config, outlook) == kept * 12 * 66_060_288 + saves * 2 * QWEN3_4B.parameters


def test_a_frozen_weight_costs_two_thirds_of_a_trained_one() -> None:
    """Attention, which has no weights, costs the same."""
    full, qlora = (training_flops(replace(QWEN3_4B, lora_rank=rank), 1).item() for rank in (0, 32))
    pairs = QWEN3_4B.attention_flops
    assert qlora - pairs == pytest.approx((full - pairs) * 2 / 3 + 6 * QWEN3_4B.adapter_parameters)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["train.lora_rank=0"], "train.lora_rank must be positive"),
        (["train.lora_alpha=x"], "train.lora_alpha must be an integer"),
        (["train.warmup_steps=1.5"], "train.warmup_steps must be an integer"),
        (["train.prefetch=true"], "train.prefetch=true is for full-parameter training only"),
        (
            ["verl.engine.offload_policy=true"],
            "verl.engine.offload_policy=true is for full-parameter training only",
        ),
    ],
)
def test_bad_values_are_named(overrides: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        configs.load("qlora_tiny", overrides)


def test_more_ranks_and_a_plan_are_refused() -> None:
    config = configs.load("qlora_tiny", ["train.ranks=2"])
    with pytest.raises(UserError, match=r"there are 2: set train\.ranks=1"):
        launcher.train(Run.of(config), config, "dataset")
    with pytest.raises(UserError, match="a QLoRA runs on one GPU"):
        Planner(configs.load("qlora_gsm8k_4b", ["cluster.gpus_per_node=2"]))
