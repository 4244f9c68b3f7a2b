"""Changes the paths of a resolved configuration after a folder was moved.

A resolved configuration has no interpolations: the path of the run or of the dataset is repeated in
every key whose path lies in that folder, such as a random base model or the tokenizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf


def move_run(config: DictConfig, root: str, name: str) -> DictConfig:
    """Returns ``config`` with the run at ``root``/``name``, and everything in its folder there."""
    old = f"{config.run.root}/{config.run.name}"
    moved = _moved(config, old, f"{root}/{name}")
    moved.run.root, moved.run.name = root, name
    if _dataset(config) == old:  # a bare model's tokenizer lies in its run
        moved.data.dir, moved.data.name = root, name
    OmegaConf.set_readonly(moved, True)
    return moved


def move_dataset(config: DictConfig, folder: str, name: str) -> DictConfig:
    """Returns ``config`` with the dataset at ``folder``/``name``, and everything in it there."""
    moved = _moved(config, _dataset(config), f"{folder}/{name}")
    moved.data.dir, moved.data.name = folder, name
    OmegaConf.set_readonly(moved, True)
    return moved


def of_dataset(overrides: Sequence[str]) -> list[str]:
    """Returns the overrides that set the dataset's place."""
    return [word for word in overrides if word.startswith(("data.dir=", "data.name="))]


def _dataset(config: DictConfig) -> str:
    return f"{config.data.dir}/{config.data.name}"


def _moved(config: DictConfig, old: str, new: str) -> DictConfig:
    def path(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: path(item) for key, item in value.items()}
        if isinstance(value, list):
            return [path(item) for item in value]
        if isinstance(value, str) and f"{value}/".startswith(f"{old}/"):
            return new + value[len(old) :]
        return value

    moved = OmegaConf.create(path(OmegaConf.to_container(config)))
    assert isinstance(moved, DictConfig)
    return moved
