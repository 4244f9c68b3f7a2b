"""NF4 quantisation of a base model: which layers and how, the same for QLoRA training and for
merging.
"""

from __future__ import annotations

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Params4bit
from transformers import BitsAndBytesConfig


def compute_type(precision: str) -> torch.dtype:
    """Returns the dtype of ``train.precision``: of matrix products, and of weights neither
    quantised nor adapters.
    """
    return {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]


def quantization(dtype: torch.dtype) -> BitsAndBytesConfig:
    """Returns the settings for NF4 in blocks of 64 weights with double quantisation, computing in
    ``dtype``.
    """
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def rounded(weight: torch.Tensor) -> torch.Tensor:
    """Returns ``weight`` (outputs, inputs) as training uses it: quantised and dequantised, in its
    own dtype.
    """
    how = quantization(weight.dtype)
    quantised = Params4bit(
        weight,
        requires_grad=False,
        quant_type=how.bnb_4bit_quant_type,
        compress_statistics=how.bnb_4bit_use_double_quant,
    ).to("cpu")
    return dequantize_4bit(quantised.data, quantised.quant_state)
