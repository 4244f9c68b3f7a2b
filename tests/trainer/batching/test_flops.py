"""The FLOPs model against torch's own counter on a real step, and against the published size of
Qwen3-4B.
"""

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen3Config, Qwen3ForCausalLM

from trainer.batching.flops import Shape, training_flops
from trainer.planning.workload import KNOWN

LENGTH = 48


def test_training_flops_are_those_that_torch_counts() -> None:
    config = Qwen3Config(
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        vocab_size=512,
        tie_word_embeddings=False,
        attn_implementation="eager",
    )
    model, shape = Qwen3ForCausalLM(config), Shape.of(config.to_dict())
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    with FlopCounterMode(display=False) as counter:
        hidden = torch.randn(
            1, LENGTH, 64, requires_grad=True
        )  # so that the first layer's backward is whole
        model(inputs_embeds=hidden).logits.sum().backward()
    # Eager attention computes every (query, key) pair, causal or not.
    pairs = LENGTH * LENGTH - LENGTH * (LENGTH + 1) / 2
    rotary = (
        2 * LENGTH * shape.head_dim / 2
    )  # positions times frequencies, the one matmul that is left out
    assert (
        counter.get_total_flops()
        == training_flops(shape, LENGTH) + shape.attention_flops * pairs + rotary
    )


def test_qwen3_4b_has_its_published_size() -> None:
    shape = KNOWN["Qwen/Qwen3-4B-Base"]
    assert shape.parameters == 4_022_468_096
    assert np.allclose(
        training_flops(shape, [1000, 2000]).sum(),
        training_flops(shape, 1000) + training_flops(shape, 2000),
    )
