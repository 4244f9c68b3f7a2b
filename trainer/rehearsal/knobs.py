"""The settings that training can do without, which a rehearsal tries one by one when it fails.

They make training faster and change nothing else: each needs kernels or a compiler that a cluster's
software may break.
"""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

from trainer.run.folder import Run

KNOBS = ("train.compile", "train.liger", "train.fused_optimizer", "train.prefetch")
"""Most likely to fail first."""
SECONDS = 180
"""How long a rehearsal may take, its start included."""


def switched_on(config: DictConfig) -> list[str]:
    """Returns the knobs that the recipe has on, most likely to fail first; a QLoRA can have
    none.
    """
    return [knob for knob in KNOBS if OmegaConf.select(config, knob)]


def is_due(run: Run, config: DictConfig) -> bool:
    """Returns whether a job rehearses: a knob is on, and the run has not trained to a checkpoint
    yet, which would show that it works. With offloaded weights it does not, because verl's own code
    loads them and needs all of the model.
    """
    offload = config.verl.engine.offload_policy
    return bool(switched_on(config)) and not offload and not run.checkpoints


def tries(knobs: Sequence[str]) -> list[tuple[str, ...]]:
    """Returns the knobs to switch off in each further try: one at a time, then all together."""
    alone: list[tuple[str, ...]] = [(knob,) for knob in knobs]
    return [*alone, tuple(knobs)] if len(knobs) > 1 else alone


def off(knobs: Sequence[str]) -> list[str]:
    """Returns the overrides that switch them off."""
    return [f"{knob}=false" for knob in knobs]
