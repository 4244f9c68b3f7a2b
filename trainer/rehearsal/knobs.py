"""The optional settings that a failed rehearsal switches off one by one.

They only make training faster. Each needs kernels or a compiler, which may fail on a cluster's
software.
"""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

from trainer.run.folder import Run

KNOBS = ("train.compile", "train.liger", "train.fused_optimizer", "train.prefetch")
"""Ordered by how likely they are to fail, most likely first."""
SECONDS = 180
"""Seconds that a rehearsal may take, including its start."""


def switched_on(config: DictConfig) -> list[str]:
    """Returns the knobs that the recipe switches on, most likely to fail first; empty for a QLoRA,
    which supports none.
    """
    return [knob for knob in KNOBS if OmegaConf.select(config, knob)]


def is_due(run: Run, config: DictConfig) -> bool:
    """Returns whether a job rehearses: a knob is on, and the run has no checkpoint yet, which would
    show that its settings work. With offloaded weights a job never rehearses, because verl's own
    code loads them and needs the whole model.
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
