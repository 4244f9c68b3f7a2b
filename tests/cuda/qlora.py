"""A QLoRA's base on fake CUDA tensors: quantised by bitsandbytes' own operators, without reading it
from files.

transformers loads a quantised model in threads of its own, where no fake tensors are made: the
loading is not shown.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from bitsandbytes import functional
from bitsandbytes.nn import Linear4bit
from torch._subclasses.fake_tensor import unset_fake_temporarily
from transformers import AutoModelForCausalLM

from tests.cuda.fakes import Fakes, real
from trainer.engine import qlora
from trainer.engine.adapters import TARGETS


def install(mode: Fakes) -> None:
    """Makes this process's QLoRA engines take a model of fake tensors in the place of the one in
    the files.
    """
    adapt = qlora.QLoraEngine._build_lora_module

    def from_pretrained(
        _: str,
        config: Any,
        dtype: torch.dtype,
        quantization_config: Any,
        device_map: Any,
        trust_remote_code: bool,
    ) -> Any:
        """Returns the model on the device of ``device_map``, its layers' matrices in 4 bits."""
        assert not trust_remote_code
        with mode:
            with torch.device("cuda", device_map[""]):
                model = AutoModelForCausalLM.from_config(config, dtype=dtype)
            for module in model.modules():
                for name in TARGETS:
                    if hasattr(module, name):
                        setattr(
                            module, name, _quantised(getattr(module, name), quantization_config)
                        )
        model.is_loaded_in_4bit = True  # peft asks
        return model.requires_grad_(False)

    def adapt_fakes(self: Any, module: torch.nn.Module) -> torch.nn.Module:
        # The adapters are made where they belong, for modules of fake tensors cannot be moved.
        with (
            mode,
            torch.device("cuda", 0),
            patch.object(torch.nn.Module, "to", lambda module, *_, **__: module),
        ):
            return adapt(self, module)

    functional.create_dynamic_map = real(functional.create_dynamic_map)
    qlora.AutoModelForCausalLM = SimpleNamespace(from_pretrained=from_pretrained)
    qlora.QLoraEngine._build_lora_module = adapt_fakes


def _quantised(linear: torch.nn.Linear, how: Any) -> Linear4bit:
    """``linear`` in 4 bits; its weight is a plain parameter, for no fake tensor can be
    bitsandbytes' own kind.
    """
    with unset_fake_temporarily():
        size = linear.in_features, linear.out_features
        made = Linear4bit(
            *size, bias=False, compute_dtype=how.bnb_4bit_compute_dtype, device="meta"
        )
    packed, state = functional.quantize_4bit(
        linear.weight.data,
        quant_type=how.bnb_4bit_quant_type,
        compress_statistics=how.bnb_4bit_use_double_quant,
    )
    made.weight = torch.nn.Parameter(packed, requires_grad=False)
    made.weight.quant_state = made.quant_state = state
    made.weight.quant_type, made.weight.compress_statistics = (
        how.bnb_4bit_quant_type,
        how.bnb_4bit_use_double_quant,
    )
    return made
