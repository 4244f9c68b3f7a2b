"""Recipes: compose with verl's own configuration, validate, freeze.

The only module that imports Hydra. All other modules read the frozen, fully resolved values.
"""

from __future__ import annotations

import difflib
import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from common.differences import differences
from common.errors import UserError, first_line
from common.files import write_text
from trainer.recipe import protocols, verbatim
from trainer.recipe.relocate import move_dataset
from trainer.recipe.validate import check_values

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
NO_SOURCE = "none"
"""``data.source`` of a run that only evaluates a bare model."""

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


def recipes() -> list[str]:
    """Returns the names of the recipes that can be run."""
    return sorted(p.stem for p in RECIPES.glob("*.yaml") if p.stem != "base")


def load(recipe: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Composes ``recipes/<recipe>.yaml`` over base.yaml and verl's configuration.

    Overrides are Hydra's ``key=value``. Returns a read-only, fully resolved configuration. Raises
    UserError for an unknown recipe or key (naming the nearest one), and for a missing or wrong
    value.
    """
    if recipe not in recipes():
        raise UserError(
            f"no recipe {recipe!r}: recipes/ has "
            f"{', '.join(recipes())}{_nearest(recipe, recipes())}"
        )
    return _load(recipe, overrides)


def for_model(path: str, overrides: Sequence[str]) -> DictConfig:
    """Returns the configuration to evaluate a bare model: base.yaml's evaluation in a run named
    after the model.
    """
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", path).strip("-.")
    data = [f"data.source={NO_SOURCE}", "data.dir=${run.root}", "data.name=${run.name}"]
    return _load("base", [f"name={slug}", f"model.path='{path}'", *data, *overrides])


def amend(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Returns a frozen configuration with overrides of its mutable keys; a new place of the dataset
    counts for all paths in it. Raises UserError for any other key.
    """
    known = dict(_leaves(config))
    for override in overrides:
        _check_override(override, config, known)
    texts, overrides = verbatim.split(overrides)
    values = OmegaConf.from_dotlist(overrides)
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


def _load(recipe: str, overrides: Sequence[str]) -> DictConfig:
    base = _compose("base", [])
    known = dict(_leaves(base))
    for name in _lineage(recipe):
        _check_keys(OmegaConf.load(RECIPES / f"{name}.yaml"), base, known, f"recipes/{name}.yaml")
    for override in overrides:
        _check_override(override, base, known)
    texts, overrides = verbatim.split(overrides)
    try:
        config = _compose(
            recipe, [f"++{o}" if _is_free(o.partition("=")[0]) else o for o in overrides]
        )
        resolved = OmegaConf.create(
            OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        )
    except OmegaConfBaseException as e:
        raise UserError(
            f"recipe {recipe}: {e.full_key or 'a key'} is not set: add {e.full_key}=VALUE"
        ) from e
    assert isinstance(resolved, DictConfig)
    protocols.follow(resolved, [*texts, *overrides])
    verbatim.put(resolved, texts)
    check_values(resolved)
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
            raise UserError(f"{path} is damaged: it is no mapping")
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
    before = dict(_leaves(read(path)))
    for key, value in _leaves(config):
        if key not in before or value != before[key]:
            OmegaConf.update(own, key, value, merge=False, force_add=True)
    return plain(own)


def immutable_changes(old: DictConfig, new: DictConfig) -> list[str]:
    """Returns the differences that a run may not have, as ``key: old -> new``; keys that are
    mutable in ``schema`` may change.
    """
    from trainer.recipe import schema  # pydantic is slow to import

    may_change = {key for key, mutable in schema.recipe_keys() if mutable} | _mirrors().keys()
    return [
        line
        for key, line in differences(dict(_leaves(old)), dict(_leaves(new))).items()
        if not any(key == name or key.startswith(f"{name}.") for name in may_change)
    ]


def _compose(name: str, overrides: list[str]) -> DictConfig:
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
        raise UserError(f"recipe {name}: {e}") from e


def _plain(config: Any, resolve: bool) -> dict[str, Any]:
    container = OmegaConf.to_container(config, resolve=resolve)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


@cache
def _defaults() -> dict[str, Any]:
    """Returns base.yaml's values merged over verl's, not resolved."""
    return _plain(_compose("base", []), resolve=False)


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


def _is_free(key: str) -> bool:
    return key.startswith(tuple(f"{k}." for k in FREE_FORM))


def _lineage(recipe: str) -> Iterator[str]:
    """Yields the recipes that a recipe is built on, without base, and then the recipe."""
    if recipe == "base":
        return
    for parent in OmegaConf.load(RECIPES / f"{recipe}.yaml").defaults:
        if parent != "_self_":
            yield from _lineage(parent)
    yield recipe


def _leaves(config: Any) -> Iterator[tuple[str, Any]]:
    """Yields (dotted key, raw value) of every leaf: also lists and free-form mappings; a missing
    value is None.
    """

    def walk(values: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        for key, value in values.items():
            path = f"{prefix}{key}"
            if isinstance(value, dict) and path not in FREE_FORM:
                yield from walk(value, f"{path}.")
            else:
                yield path, None if value == "???" else value

    return walk(OmegaConf.to_container(config, resolve=False), "")


def _mirrors() -> dict[str, str]:
    """Returns {key under ``verl``: our keys that base.yaml sets it from}."""
    raw = OmegaConf.load(RECIPES / "base.yaml").verl
    sources = {
        f"verl.{path}": re.findall(r"\$\{(.+?)\}", str(value)) for path, value in _leaves(raw)
    }
    return {key: " and ".join(names) for key, names in sources.items() if names}


def _nearest(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def _unknown(key: str, known: dict[str, Any], where: str) -> UserError:
    return UserError(
        f"{where}: unknown key {key}{_nearest(key, list(known))} (recipes/base.yaml lists every "
        "key)"
    )


def _check_keys(config: Any, base: DictConfig, known: dict[str, Any], where: str) -> None:
    for key, _ in _leaves(config):
        if key == "defaults" or key in known or _is_free(key):
            continue
        if isinstance(OmegaConf.select(base, key, throw_on_missing=False), DictConfig):
            raise UserError(f"{where}: {key} is a section; set the keys in it")
        raise _unknown(key, known, where)


def _check_override(override: str, base: DictConfig, known: dict[str, Any]) -> None:
    key, equals, _ = override.partition("=")
    if not equals:
        raise UserError(f"{override!r} is not an override: write key=value")
    if key in known or _is_free(key):
        if source := _mirrors().get(key):
            raise UserError(f"{key} is set from {source}: change that instead")
        if key.startswith("verl.") and not key.startswith(OPEN):
            raise UserError(
                f"{key} cannot be set: this trainer reads its settings from data and train"
            )
        return
    if isinstance(OmegaConf.select(base, key, throw_on_missing=False), DictConfig):
        raise UserError(f"{key} is a section; set the keys in it")
    raise _unknown(key, known, "command line")
