"""Describes what was done to the base model, and the form of the answers that it was trained to
give.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from eval.report.run_facts import parameter_count
from trainer.engine.adapters import TARGETS, merged_base

ANSWERS = {
    "boxed": "answer with a `\\boxed{}`",
    "answer_is": 'state the answer as "The answer is N."',
}
"""Answer style -> what the model was trained to do after the think block."""
BASES = {
    "nf4": "these 4-bit weights, dequantised",
    "bf16": "the original 16-bit weights, not the 4-bit ones of training",
}
"""``export.merge_base`` -> what the adapters were added to."""
TAGS = {False: "full-parameter", True: "qlora"}
"""Whether the run is a QLoRA -> the model's tag on the hub."""
RANDOM = (
    "**It started from random weights.** It shows that the pipeline works from end to end, and "
    "knows nothing but what its training rows taught it."
)


def hub_base(config: DictConfig) -> str | None:
    """Returns the base model's name on the hub; None for random weights or a local folder."""
    path = config.model.path
    return None if config.model.init is not None or Path(path).exists() else path


def base(config: DictConfig) -> str:
    """Returns the base model's name, in Markdown."""
    if config.model.init is not None:
        return "a Qwen3 with random weights"
    if name := hub_base(config):
        return f"[{name}](https://huggingface.co/{name})"
    return f"`{Path(config.model.path).name}`"


def of_summary(config: DictConfig, export: Mapping[str, Any]) -> str:
    """Returns the method as the end of "after N steps of"; ``export`` is the export's manifest."""
    if config.train.lora_rank:
        return "QLoRA fine-tuning"
    return f"supervised fine-tuning of all its {parameter_count(export['parameters'])} parameters"


def details(config: DictConfig, export: Mapping[str, Any]) -> str | None:
    """Returns how a QLoRA trained and merged its adapters; None for full-parameter training.
    ``export`` is the export's manifest.
    """
    train = config.train
    if not train.lora_rank:
        return None
    targets = ", ".join(f"`{name}`" for name in TARGETS)
    return (
        f"Only adapters were trained: rank {train.lora_rank}, alpha {train.lora_alpha}, on "
        f"{targets} of every layer. The base model was frozen, with these layers in 4-bit NF4. "
        f"The adapters are merged into {BASES[merged_base(export)]}, so the weights in this "
        "repository are whole, in 16 bits (bf16), and no adapter is needed."
    )
