"""What makes two runs replicates: frozen configurations that differ in the training seed alone."""

from __future__ import annotations

from collections.abc import Collection

from omegaconf import DictConfig

from trainer.recipe import load as configs
from trainer.recipe.relocate import move_dataset, move_run

SEED = "train.seed"
NAMES = ("name",)
"""Immutable keys that name something and change nothing, besides the run's and the dataset's."""
PLACES = ("model.path", "model.revision", "data.source")
"""Keys that say where model and data were found. They do not count if the hashes of both are known
to be the same.
"""


def differing(one: DictConfig, other: DictConfig, same_sources: bool = False) -> list[str]:
    """Returns in what two frozen configurations differ that can change the model, apart from the
    training seed, as ``key: value -> value``; names, folders and what may change between attempts
    of one run do not count. ``same_sources``: the hashes of dataset and base model are equal.
    """
    moved = move_run(other, one.run.root, one.run.name)
    moved = move_dataset(moved, one.data.dir, one.data.name)
    ignored: Collection[str] = (SEED, *NAMES, *(PLACES if same_sources else ()))
    return [
        line
        for line in configs.immutable_changes(one, moved)
        if line.partition(":")[0] not in ignored
    ]
