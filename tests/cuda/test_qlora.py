"""A QLoRA's step on CUDA tensors, without a GPU: bitsandbytes' operators, peft's adapters, 8-bit
AdamW.
"""

from typing import Any

import pytest

from tests.cuda.cases import QLORA, QLORA_WHOLE, Case
from trainer.engine.adapters import TARGETS
from trainer.planning import memory

CARD = 12e9
"""Bytes of the card that the recipe is for."""
every_case = pytest.mark.parametrize(
    "case", [QLORA, pytest.param(QLORA_WHOLE, marks=pytest.mark.slow)], ids=lambda case: case.name
)


@every_case
def test_adapters_are_fp32_and_the_base_has_4_bits(step: dict[str, Any]) -> None:
    assert step["parameters"] == step["gradients"] == [["torch.float32", "cuda:0"]]
    assert step["frozen"] == [["torch.bfloat16", "cuda:0"], ["torch.uint8", "cuda:0"]]
    assert step["moments"] == [["torch.float32", "cuda:0"], ["torch.uint8", "cuda:0"]]


@every_case
def test_the_host_waits_for_the_norm_and_after_each_adapter_that_is_updated(
    case: Case, step: dict[str, Any]
) -> None:
    assert sum(step["reads"].values()) == 2
    # bitsandbytes' optimizer synchronises after every parameter; an adapter has two.
    assert step["waits"] == 2 * len(TARGETS) * case.layers


@every_case
def test_a_step_fits_the_card(step: dict[str, Any]) -> None:
    assert step["peak"] * (1 + memory.FRAGMENTATION) + memory.CONTEXT < CARD
