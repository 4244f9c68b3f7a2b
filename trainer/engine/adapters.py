"""The LoRA adapters of a QLoRA: which layers have one, and how many parameters they have.

Imports neither torch nor peft, so that pages and cards can name them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Linear layers that are quantised and have a LoRA adapter."""
ADAPTERS = "adapter_parameters"
"""Key of an export's manifest: the number of parameters of the adapters that were merged into
it.
"""


def trainable(config: DictConfig, export: Mapping[str, Any]) -> tuple[int, int] | None:
    """Returns (parameters that were trained, parameters of the model in training, adapters
    included), from a run's configuration and an export's manifest; None for a QLoRA's export whose
    adapters older code did not count.
    """
    size = export["parameters"]
    if not config.train.lora_rank:
        return size, size
    adapters = export.get(ADAPTERS)
    return None if adapters is None else (adapters, size + adapters)
