"""Which training steps run on paper: the model's size, its layers, and the recipe's keys that
differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from trainer.batching.flops import Shape
from trainer.planning.workload import KNOWN

RANKS = 16
"""The ranks of the recipes' cluster; a process is rank 0."""
CHECKPOINTING = ("none", "selective", "full")
DEGREES = (1, 2, 4, 16)
"""Degrees of sequence parallelism; 16 is more than the models' eight key-value heads."""


@dataclass(frozen=True)
class Case:
    """A step of the 4B or 8B recipe with ``layers`` layers of the real width."""

    size: str
    layers: int
    degree: int
    checkpointing: str
    extra: tuple[str, ...] = ()
    recipe: str = "sft"
    """sft, or qlora_gsm8k, which runs on one rank."""

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Case:
        """Reads a case from JSON."""
        return cls(**{**fields, "extra": tuple(fields["extra"])})

    @property
    def name(self) -> str:
        """Names the case in tables and in the identity of its test."""
        words = [
            f"{self.recipe}_{self.size}",
            f"{self.layers} layers",
            f"sp {self.degree}",
            self.checkpointing,
            *self.extra,
        ]
        return ", ".join(words)

    @property
    def ranks(self) -> int:
        """The ranks of the step."""
        return RANKS if self.recipe == "sft" else 1

    @property
    def shape(self) -> Shape:
        """The model's shape."""
        return replace(KNOWN[f"Qwen/Qwen3-{self.size.upper()}-Base"], layers=self.layers)

    @property
    def overrides(self) -> tuple[str, ...]:
        """The recipe's keys."""
        return (
            f"train.sequence_parallel={self.degree}",
            f"train.checkpointing={self.checkpointing}",
            "train.attention=varlen",
            # Fake tensors cannot be compiled for; ``kernels`` counts what compiling saves.
            "train.compile=false",
            "train.fused_optimizer=false",
            *self.extra,
        )


def documents(budget: int) -> tuple[tuple[int, ...], ...]:
    """Tokens of each document in the micro-batches of a step with ``budget`` tokens of a group in
    each.

    A group may run out of rows before the others: its last micro-batch is empty.
    """
    return (budget // 2, budget // 4, budget // 4), (budget,), ()


FUSED, PREFETCH = "train.fused_optimizer=true", "train.prefetch=true"
QUICK = (
    Case("4b", 2, 1, "none"),
    Case("4b", 2, 2, "selective"),
    Case("4b", 2, 4, "full", (FUSED, PREFETCH)),
    Case("4b", 2, 16, "none"),
    Case("8b", 2, 1, "selective"),
    Case("8b", 2, 2, "none"),
    Case("8b", 2, 4, "full", (FUSED,)),
    Case("8b", 2, 16, "selective"),
)
"""Every degree, checkpointing and option of both sizes, in few cases."""
WIDE = tuple(
    Case(size, 2, degree, kind)
    for size in ("4b", "8b")
    for degree in DEGREES
    for kind in CHECKPOINTING
)
"""Every combination of degree and checkpointing."""
WHOLE = tuple(Case(size, 36, 2, "selective") for size in ("4b", "8b"))
"""The recipes' layouts at full depth, with eager layers and AdamW in several kernels."""
QLORA, QLORA_WHOLE = (Case("4b", layers, 1, "full", recipe="qlora_gsm8k") for layers in (2, 36))
"""The QLoRA recipe."""
