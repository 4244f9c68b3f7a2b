"""A QLoRA's base on fake CUDA tensors: quantised by bitsandbytes' own operators, without reading it from files.

transformers loads a quantised model in threads of its own, where no fake tensors are made: the loading is not shown.
"""

from __future__ import annotations

from typing import Any

import torch
from bitsandbytes.nn import Linear4bit, Params4bit
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM

from trainer.qlora import engine as qlora
from trainer.qlora.nf4 import TARGETS


def install(mode: FakeTensorMode) -> None:
    """Makes this process's QLoRA engines take a model of fake tensors in the place of the one in the files."""

    class Quantised:
        """What the engine knows of transformers' AutoModelForCausalLM."""

        @staticmethod
        def from_pretrained(_: str, config: Any, dtype: torch.dtype, quantization_config: Any, device_map: Any) -> Any:
            """Returns the model on the device of ``device_map``, its layers' matrices in 4 bits."""
            device = torch.device("cuda", device_map[""])
            with mode, device:
                model = AutoModelForCausalLM.from_config(config, dtype=dtype)
                for module in model.modules():
                    for name in TARGETS:
                        if hasattr(module, name):
                            setattr(module, name, _quantised(getattr(module, name), quantization_config, device))
            return model.requires_grad_(False)

    adapt = qlora.QLoraEngine._build_lora_module

    def adapt_fakes(self: Any, module: torch.nn.Module) -> torch.nn.Module:
        with mode:
            return adapt(self, module)

    qlora.AutoModelForCausalLM, qlora.QLoraEngine._build_lora_module = Quantised, adapt_fakes


def _quantised(linear: torch.nn.Linear, how: Any, device: torch.device) -> Linear4bit:
    made = Linear4bit(linear.in_features, linear.out_features, bias=False, compute_dtype=how.bnb_4bit_compute_dtype)
    made.weight = Params4bit(
        linear.weight.data,
        requires_grad=False,
        quant_type=how.bnb_4bit_quant_type,
        compress_statistics=how.bnb_4bit_use_double_quant,
        module=made,
    ).to(device)
    return made
