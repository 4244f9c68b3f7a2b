"""QLoRA (Dettmers et al. 2023): the base frozen in 4-bit NF4, adapters trained with 8-bit AdamW, on
one GPU.

This engine runs in the loop of full-parameter training, so recipes, metrics, checkpoints, stops and
packing are the same. bitsandbytes quantises and optimises, peft adds the adapters. trl's SFTTrainer
would be a second loop: its resume unpickles, its packing separates rows only under flash-attn, and
it materialises all logits. A test and ``make gpu-check`` compare with it instead.
"""

from __future__ import annotations

from typing import Any

import torch
from bitsandbytes.nn import Linear4bit
from bitsandbytes.optim import AdamW8bit
from peft import LoraConfig, inject_adapter_in_model
from transformers import AutoModelForCausalLM
from verl.utils.device import get_device_id, get_device_name
from verl.workers.engine import EngineRegistry

from trainer.batching.packing import Packed
from trainer.engine.adapters import TARGETS
from trainer.engine.fsdp import Engine
from trainer.engine.nf4 import compute_type, quantization

BACKEND = "warmstart_qlora"


class Optimizer(AdamW8bit):
    """bitsandbytes' AdamW with the plain state_dict that torch's checkpoints need; bitsandbytes
    nests it for FSDP1.
    """

    def state_dict(self) -> dict[str, Any]:
        return torch.optim.Optimizer.state_dict(self)


@EngineRegistry.register(model_type="language_model", backend=BACKEND, device=["cpu", "cuda"])
class QLoraEngine(Engine):
    """Trains the adapters only; their weights and all reductions are fp32, as in full-parameter
    training.
    """

    def forward(self, packed: Packed, scale: float = 1.0) -> tuple[torch.Tensor, ...]:
        """See ``Engine.forward``; with bf16 the adapters' fp32 weights are cast for each matrix
        product.
        """
        bf16 = self.engine_config.mixed_precision["param_dtype"] == "bf16"
        with torch.autocast(get_device_name(), torch.bfloat16, enabled=bf16):
            return super().forward(packed, scale)

    def _build_module(self) -> torch.nn.Module:
        dtype = compute_type(self.engine_config.mixed_precision["param_dtype"])
        module = AutoModelForCausalLM.from_pretrained(
            self.model_config.local_path,
            config=self.model_config.hf_config,
            trust_remote_code=False,
            dtype=dtype,
            quantization_config=quantization(dtype),
            device_map={"": get_device_id()},
        )
        for part in module.modules():
            if isinstance(part, Linear4bit):
                # On CPUs with AVX512-BF16 a validation would repack the weights for a kernel
                # without a backward.
                part.support_avx512bf16_for_cpu = False
        return self._prepared(module)

    def _build_lora_module(self, module: torch.nn.Module) -> torch.nn.Module:
        """Adds fp32 adapters whose product starts at zero, with the same initial weights in every
        attempt.
        """
        torch.manual_seed(self.engine_config.seed)
        rank, alpha = self.model_config.lora_rank, self.model_config.lora_alpha
        inject_adapter_in_model(
            LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(TARGETS)), module
        )
        for adapter in _trained(module):
            adapter.data = adapter.data.float()  # peft creates them in the compute dtype
        return module

    def _build_fsdp_module(self, module: torch.nn.Module) -> torch.nn.Module:
        return module  # one rank: nothing to shard

    def _build_optimizer(self, module: torch.nn.Module) -> torch.optim.Optimizer:
        wanted = self.optimizer_config
        return Optimizer(
            _trained(module),
            lr=wanted.lr,
            betas=tuple(wanted.betas),
            weight_decay=wanted.weight_decay,
        )


def _trained(module: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [p for p in module.parameters() if p.requires_grad]
