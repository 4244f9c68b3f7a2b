"""Runs of the tiny recipe that differ in their training seed, with configurations alone."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from tests.eval.runs import empty_run
from trainer.recipe import load as configs
from trainer.run.folder import Run


def changed(run: Run, **values: Any) -> Run:
    """Gives a run other frozen values, by key with ``__`` for a dot."""
    config = configs.read(run.config).copy()
    OmegaConf.set_readonly(config, False)
    for key, value in values.items():
        OmegaConf.update(config, key.replace("__", "."), value)
    configs.write(config, run.config)
    return run


def replicate(folder: Path, seed: int, **values: Any) -> Run:
    """Writes a run with this training seed, and other values by key as ``changed`` takes them."""
    seeds = {"train__seed": seed, "verl__engine__seed": seed}
    return changed(empty_run(folder), name=folder.name, **seeds, **values)
