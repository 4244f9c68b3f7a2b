"""The keys of a recipe: which exist, which of verl's keys are set from ours, and which a user may
set.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from omegaconf import DictConfig, OmegaConf

from common.text import nearest
from trainer.recipe.files import BASE, RECIPES, read

# Mappings whose keys the user chooses.
FREE_FORM = (
    "model.init",
    "data.columns",
    "reference",
    "verl.model.override_config",
    "verl.optim.override_optimizer_config",
)

# Keys of verl's that users may set; the others follow from our keys, belong to verl's loop, or
# would break this engine.
OPEN = (
    "verl.engine.offload_policy",
    "verl.engine.reshard_after_forward",
    "verl.engine.use_no_sync_for_gradient_accumulation",
    "verl.optim.",
    "verl.model.override_config",
)


def is_free(key: str) -> bool:
    """Returns whether a key belongs to a mapping whose keys the user chooses."""
    return key.startswith(tuple(f"{k}." for k in FREE_FORM))


def leaves(config: Any) -> Iterator[tuple[str, Any]]:
    """Yields (dotted key, raw value) of every leaf; lists and free-form mappings are leaves, a
    missing value is None.
    """

    def walk(values: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        for key, value in values.items():
            path = f"{prefix}{key}"
            if isinstance(value, dict) and path not in FREE_FORM:
                yield from walk(value, f"{path}.")
            else:
                yield path, None if value == "???" else value

    return walk(OmegaConf.to_container(config, resolve=False), "")


@cache
def mirrors() -> dict[str, tuple[str, ...]]:
    """Returns {key under ``verl``: our keys that base.yaml sets it from}."""
    raw = read(RECIPES / f"{BASE}.yaml").verl
    sources = {
        f"verl.{path}": tuple(re.findall(r"\$\{(.+?)\}", str(value))) for path, value in leaves(raw)
    }
    return {key: names for key, names in sources.items() if names}


class Keys:
    """The keys of base.yaml and verl's configuration."""

    def __init__(self, base: DictConfig) -> None:
        self._base = base
        self._known = dict(leaves(base))

    def faults(self, content: Any, where: str) -> Iterator[str]:
        """Yields what is wrong with the keys of a recipe file's content; ``where`` names it."""
        for key, _ in leaves(content):
            if key != "defaults" and (fault := self._unknown(key)):
                yield f"{where}: {fault}"
            elif source := mirrors().get(key):
                yield f"{where}: {_mirrored(key, source)}"

    def override_fault(self, override: str) -> str | None:
        """Returns what is wrong with the key of a ``key=value`` word; None if nothing is."""
        key, equals, _ = override.partition("=")
        if not equals:
            return f"{override!r} is not an override: write key=value"
        if fault := self._unknown(key):
            return f"command line: {fault}"
        if source := mirrors().get(key):
            return _mirrored(key, source)
        if key.startswith("verl.") and not key.startswith(OPEN):
            return f"{key} cannot be set: this trainer reads its settings from data and train"
        return None

    def missing(self, config: DictConfig) -> list[str]:
        """Returns the keys that have no value yet; for a key of verl that is set from one of ours,
        ours.
        """
        raw = OmegaConf.to_container(config, resolve=False)
        return [key for key in self._known if _select(raw, key) == "???"]

    def _unknown(self, key: str) -> str | None:
        if key in self._known or is_free(key):
            return None
        if isinstance(OmegaConf.select(self._base, key, throw_on_missing=False), DictConfig):
            return f"{key} is a section; set the keys in it"
        return f"unknown key {key}{_near(key, self._known)} (recipes/base.yaml lists every key)"


def _near(key: str, known: Mapping[str, Any]) -> str:
    """Returns a hint with the nearest key that can be set; a name without a section may be in any
    section.
    """
    ours = [
        name
        for name in known
        if name not in mirrors() and (not name.startswith("verl.") or name.startswith(OPEN))
    ]
    if "." not in key:
        same = [name for name in ours if name.endswith(f".{key}")]
        if same:
            return f"; did you mean {' or '.join(same)}?"
    return nearest(key, ours)


def _mirrored(key: str, source: tuple[str, ...]) -> str:
    return f"{key} is set from {' and '.join(source)}: change that instead"


def _select(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, Mapping) else None
    return values
