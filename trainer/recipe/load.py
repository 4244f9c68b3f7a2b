"""Recipes: compose with verl's own configuration, validate, freeze.

The only module that imports Hydra. All other modules read the frozen, fully resolved values.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException
from yaml import YAMLError

from common.differences import differences
from common.errors import UserError, faults_of, first_line, refuse
from common.files import write_text
from trainer.recipe import files, home, protocols, verbatim
from trainer.recipe.files import BASE, RECIPES
from trainer.recipe.files import recipes as recipes
from trainer.recipe.keys import FREE_FORM, Keys, is_free, leaves, mirrors
from trainer.recipe.relocate import move_dataset
from trainer.recipe.validate import check_values

OWN_FILE = "a file of the user"
"""Name by which Hydra knows a recipe that is not in recipes/."""
NO_SOURCE = "none"
"""``data.source`` of a run that only evaluates a bare model."""


def load(recipe: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Composes a recipe, a name in recipes/ or the path of a file, over base.yaml and verl's
    configuration. A file without ``name`` has its own file name.

    Overrides are Hydra's ``key=value``. Returns a read-only, fully resolved configuration. Raises
    UserError for an unknown recipe, parent or key (naming the nearest one), for a file that is no
    YAML, and for missing or wrong values.
    """
    return _load(files.find(recipe), overrides)


def for_model(path: str, overrides: Sequence[str]) -> DictConfig:
    """Returns the configuration to evaluate a bare model: base.yaml's evaluation in a run named
    after the model.
    """
    word = path if path.strip("./") else str(Path(path).resolve())
    slug = re.sub(r"[^A-Za-z0-9._-]+|\.{2,}", "-", word).strip("-.")[-200:].lstrip("-.")
    quoted = path.replace("'", "\\'")
    data = [f"data.source={NO_SOURCE}", "data.dir=${run.root}", "data.name=${run.name}"]
    return _load(
        RECIPES / f"{BASE}.yaml", [f"name={slug}", f"model.path='{quoted}'", *data, *overrides]
    )


def amend(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Returns a frozen configuration with overrides of its mutable keys; a new place of the dataset
    changes all paths in it. Raises UserError for any other key.
    """
    keys = Keys(config)
    refuse([fault for word in overrides if (fault := keys.override_fault(word))])
    texts, overrides = verbatim.split(overrides)
    values = OmegaConf.from_dotlist(overrides)
    home.expand(values)
    data = OmegaConf.merge(config, values).data
    changed = OmegaConf.merge(move_dataset(config, data.dir, data.name), values)
    assert isinstance(changed, DictConfig)
    OmegaConf.set_readonly(changed, False)
    if any(override.startswith("eval.protocol=") for override in overrides):
        protocols.follow(changed, [*texts, *overrides])
    verbatim.put(changed, texts)
    if changes := immutable_changes(config, changed):
        raise UserError("a run's configuration cannot change: " + "; ".join(changes))
    check_values(changed)
    OmegaConf.set_readonly(changed, True)
    return changed


def _load(path: Path, overrides: Sequence[str]) -> DictConfig:
    overrides = [home.typed(word) for word in overrides]
    keys = Keys(_compose(BASE, []))
    bare = path == RECIPES / f"{BASE}.yaml"
    lineage = [] if bare else list(files.lineage(path))
    faults = [fault for file, own in lineage for fault in keys.faults(own, files.shown(file))]
    wrong = {word: fault for word in overrides if (fault := _override_fault(word, keys))}
    faults += wrong.values()
    # What else is wrong is told together with these.
    texts, overrides = verbatim.split([word for word in overrides if word not in wrong])
    config = _compose(
        path.stem if path.parent == RECIPES else _stored(path, lineage[-1][1]),
        [f"++{word}" if _chosen(word.partition("=")[0]) else word for word in overrides],
        files.shown(path),
    )
    home.expand(config)
    if missing := [f"{key} is not set: add {key}=VALUE" for key in keys.missing(config)]:
        refuse([*faults, *missing])
    try:
        resolved = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    except InterpolationResolutionError as e:
        key = " and ".join(mirrors().get(str(e.full_key), [str(e.full_key)]))
        refuse([*faults, f"{files.shown(path)}: {key}: {first_line(e)}"])
    assert isinstance(resolved, DictConfig)
    faults += faults_of([partial(protocols.follow, resolved, [*texts, *overrides])])
    verbatim.put(resolved, texts)
    refuse([*faults, *faults_of([partial(check_values, resolved)])])
    OmegaConf.set_readonly(resolved, True)
    return resolved


def read(path: Path) -> DictConfig:
    """Reads the frozen configuration of a run, also of one that older code started.

    A key missing in the file gets base.yaml's default, which is the old behaviour; a key that
    base.yaml no longer has is left out. Raises UserError when there is no file at ``path``, or when
    it holds no configuration.
    """
    if not path.exists():
        raise UserError(
            f"{path} does not exist: no run has been started there (warmstart train RECIPE)"
        )
    try:
        loaded = OmegaConf.load(path)
        if not isinstance(loaded, DictConfig):
            raise UserError(f"{path} is damaged: it is not a mapping")
        filled = _filled(_defaults(), _plain(loaded, resolve=False))
        config = OmegaConf.create(OmegaConf.to_container(OmegaConf.create(filled), resolve=True))
    except (UnicodeDecodeError, YAMLError, OmegaConfBaseException) as e:
        raise UserError(f"{path} is damaged: {first_line(e)}") from e
    assert isinstance(config, DictConfig)
    OmegaConf.set_readonly(config, True)
    return config


def write(config: DictConfig, path: Path) -> None:
    """Writes ``config`` to a YAML file."""
    write_text(path, OmegaConf.to_yaml(config))


def plain(config: DictConfig) -> dict[str, Any]:
    """Returns the configuration as plain dicts, lists and scalars."""
    return _plain(config, resolve=True)


def own_values(config: DictConfig, path: Path) -> dict[str, Any]:
    """Returns, for hashes, the plain values of ``config``: the one frozen at ``path`` with or
    without overrides.

    Only the file's own keys and the overrides are included, so adding or removing a key in
    base.yaml changes nothing.
    """
    own = OmegaConf.load(path)
    assert isinstance(own, DictConfig)
    before = dict(leaves(read(path)))
    for key, value in leaves(config):
        if key not in before or value != before[key]:
            OmegaConf.update(own, key, value, merge=False, force_add=True)
    return plain(own)


def immutable_changes(old: DictConfig, new: DictConfig) -> list[str]:
    """Returns the differences that a run may not have, as ``key: old -> new``; keys that are
    mutable in ``schema`` may change.
    """
    from trainer.recipe import schema  # pydantic is slow to import

    may_change = {key for key, mutable in schema.recipe_keys() if mutable} | mirrors().keys()
    return [
        line
        for key, line in differences(dict(leaves(old)), dict(leaves(new))).items()
        if not any(key == name or key.startswith(f"{name}.") for name in may_change)
    ]


def _stored(path: Path, content: DictConfig) -> str:
    """Gives Hydra the content of a recipe file that is not in recipes/; returns its name there."""
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(OWN_FILE, OmegaConf.merge({"name": path.stem}, content))
    return OWN_FILE


def _compose(name: str, overrides: list[str], shown: str = "") -> DictConfig:
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException

    spec = importlib.util.find_spec("verl")
    assert spec is not None and spec.origin is not None, "verl is not installed: make setup"
    verl_configs = Path(spec.origin).parent / "trainer" / "config"
    try:
        with initialize_config_dir(version_base=None, config_dir=str(RECIPES)):
            return compose(
                name, overrides=[f"hydra.searchpath=[file://{verl_configs}]", *overrides]
            )
    except HydraException as e:
        raise UserError(f"{shown}: {first_line(e)}") from e


def _chosen(key: str) -> bool:
    """Returns whether a key is a mapping whose keys the user chooses, or belongs to one; it may be
    null in the recipe.
    """
    return key in FREE_FORM or is_free(key)


def _override_fault(override: str, keys: Keys) -> str | None:
    """Returns what is wrong with a ``key=value`` word, but for the value's type and range; None if
    nothing is.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if fault := keys.override_fault(override):
        return fault
    key = override.partition("=")[0]
    if key in verbatim.TEXTS:
        return None
    try:
        if not OverridesParser.create().parse_override(override).is_sweep_override():
            return None
    except HydraException:
        pass
    return (
        f"{override!r} cannot be read as a value: write a text as \"{key}='TEXT'\" (with both "
        f'kinds of quotes), and a list as "{key}=[A,B]"'
    )


def _plain(config: Any, resolve: bool) -> dict[str, Any]:
    container = OmegaConf.to_container(config, resolve=resolve)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


@cache
def _defaults() -> dict[str, Any]:
    """Returns base.yaml's values merged over verl's, not resolved."""
    return _plain(_compose(BASE, []), resolve=False)


def _filled(
    defaults: Mapping[str, Any], own: Mapping[str, Any], prefix: str = ""
) -> dict[str, Any]:
    """Returns the keys of ``defaults`` with ``own``'s values, or with the defaults where ``own``
    has no value.
    """
    filled = {}
    for key, default in defaults.items():
        path, value = f"{prefix}{key}", own.get(key, default)
        if path in FREE_FORM:
            filled[key] = value
        elif isinstance(default, dict):
            filled[key] = _filled(default, value if isinstance(value, dict) else {}, f"{path}.")
        else:
            filled[key] = default if isinstance(value, dict) else value
    return filled
