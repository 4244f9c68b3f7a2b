"""Facts about a QLoRA's adapters, without importing torch: which layers have one, and what they
were merged into.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Linear layers that are quantised and have a LoRA adapter."""
MERGE_BASE = "merge_base"
"""Key of a QLoRA's export manifest: the value of ``export.merge_base``."""


def merged_base(export: Mapping[str, Any]) -> str:
    """Returns the base that a QLoRA's export was merged into, from its manifest; older code
    recorded none and merged into the NF4 base.
    """
    return export.get(MERGE_BASE, "nf4")
