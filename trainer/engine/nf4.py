"""What of a base model is frozen in 4 bits, and how: the same for training on it and for merging into it."""

from __future__ import annotations

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Params4bit
from transformers import BitsAndBytesConfig

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear maps of a layer: what is quantised and has an adapter."""


def compute_type(precision: str) -> torch.dtype:
    """``train.precision``'s type: of products, and of the weights that are neither quantised nor adapters."""
    return {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]


def quantization(dtype: torch.dtype) -> BitsAndBytesConfig:
    """NF4 in blocks of 64 weights, the blocks' scales quantised again, for products in ``dtype``."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def rounded(weight: torch.Tensor) -> torch.Tensor:
    """``weight`` (outputs, inputs) as a product in training sees it: quantised and dequantised, in its own type."""
    how = quantization(weight.dtype)
    quantised = Params4bit(
        weight,
        requires_grad=False,
        quant_type=how.bnb_4bit_quant_type,
        compress_statistics=how.bnb_4bit_use_double_quant,
    ).to("cpu")
    return dequantize_4bit(quantised.data, quantised.quant_state)
