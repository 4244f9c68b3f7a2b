"""Checks whether two runs are replicates: their frozen configurations differ only in the training
seed.
"""

from __future__ import annotations

from collections.abc import Collection

from omegaconf import DictConfig

from trainer.recipe import load as configs
from trainer.recipe.relocate import move_dataset, move_run

SEED = "train.seed"
NAMES = ("name",)
"""Immutable keys that only name something, in addition to the run's and the dataset's names."""
PLACES = ("model.path", "model.revision", "data.source")
"""Keys for the place of model and data. They do not count if the hashes of both are known to be
equal.
"""


def differing(one: DictConfig, other: DictConfig, same_sources: bool = False) -> list[str]:
    """Returns the differences of two frozen configurations that can change the model, except for
    the training seed, as ``key: value -> value``. Names, folders and keys that may change between
    attempts of a run do not count. ``same_sources``: the hashes of dataset and base model are
    equal.
    """
    moved = move_run(other, one.run.root, one.run.name)
    moved = move_dataset(moved, one.data.dir, one.data.name)
    ignored: Collection[str] = (SEED, *NAMES, *(PLACES if same_sources else ()))
    return [
        line
        for line in configs.immutable_changes(one, moved)
        if line.partition(":")[0] not in ignored
    ]
