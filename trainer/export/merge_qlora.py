"""Merges a QLoRA's base and adapters into one 16-bit model, a matrix at a time, on the CPU.

``export.merge_base`` chooses the base. With nf4, the base is quantised as in training and
dequantised: the adapters were trained to compensate for the quantisation error, so the sum is the
model that was trained. With bf16, it is the original base, as in Unsloth's merge: closer to the
base, but not the model that was trained.
"""

from __future__ import annotations

import torch
from omegaconf import DictConfig

from trainer.engine.adapters import TARGETS
from trainer.engine.nf4 import compute_type, rounded
from trainer.export.weights import Saved, Trained
from trainer.run.trained_from import model_folder

A, B = "lora_A.default", "lora_B.default"
"""Names that peft gives an adapter's two factors."""


class Merged:
    """The tensors of a base model with the adapters of a checkpoint added."""

    def __init__(self, config: DictConfig, adapters: Trained) -> None:
        self.adapters, self.compute_type = adapters, compute_type(config.train.precision)
        self.quantised = config.export.merge_base == "nf4"
        self.scale = config.train.lora_alpha / config.train.lora_rank
        self._base = Saved(model_folder(config.model.path, config.model.revision))
        self.sizes = self._base.sizes

    def read(self, name: str, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        """Returns the tensor, converted to ``dtype``; base and adapter are added in fp32."""
        base = self._base.read(name, self.compute_type)
        module = name.removesuffix(".weight")
        if module.rpartition(".")[2] not in TARGETS:
            return base.to(dtype)
        a, b = (self.adapters.read(f"{module}.{factor}.weight", torch.float32) for factor in (A, B))
        if self.quantised:
            base = rounded(base)
        return (base.float() + self.scale * (b @ a)).to(dtype)
