"""The configuration of a run, frozen at its first start: later attempts may change only mutable
keys. The run's folder may be moved and renamed: its current path counts, not the one in the file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from common.errors import UserError
from common.files import file_errors
from trainer.recipe import load as configs
from trainer.recipe import site, verbatim
from trainer.recipe.relocate import move_run
from trainer.run.folder import Run


def read(run: Run, file: Path | None = None) -> DictConfig:
    """Returns the run's frozen configuration, or the one in ``file`` that an attempt executed, with
    the run at its current path.

    Raises UserError when there is no such file.
    """
    config = configs.read(file or run.config)
    if Run.of(config).root.absolute() == run.root.absolute():
        return config
    return move_run(config, str(run.root.parent), run.name)


def choose(
    load: Callable[[Sequence[str]], DictConfig], typed: Sequence[str], without: str = ""
) -> tuple[list[str], DictConfig]:
    """Returns (overrides, configuration) of a command: the site's overrides followed by the typed
    ones; site keys that begin with ``without`` are ignored.

    A run that has been started keeps its values: the site only changes where it is searched for.
    """
    given = {_key(word) for word in typed}
    chosen = [word for word in site.overrides() if _key(word) not in given]
    if without:
        chosen = [word for word in chosen if not word.startswith(without)]
    try:
        config = load([*chosen, *typed])
    except UserError as e:
        where = f" ({site.FILE} has {' '.join(chosen)})" if chosen else ""
        raise UserError(f"{e}{where}") from e
    run = Run.of(config)
    if not chosen or not run.config.exists():
        return [*chosen, *typed], config
    frozen = configs.read(run.config)
    kept = [
        word if _key(word) in ("run.root", "run.name") else _frozen(_key(word), frozen)
        for word in chosen
    ]
    return [*kept, *typed], load([*kept, *typed])


def check(config: DictConfig) -> Run:
    """Returns the run of ``config``, which need not exist yet.

    Raises UserError when it was started with other values for keys that may not change.
    """
    run = Run.of(config)
    if not run.config.exists():
        return run
    frozen = move_run(configs.read(run.config), config.run.root, config.run.name)
    changes = configs.immutable_changes(frozen, config)
    if changes:
        raise UserError(
            f"{run.root} was started with other values:\n  "
            + "\n  ".join(changes)
            + "\nuse those values, or name a new run with run.name=NAME"
        )
    return run


def start(config: DictConfig) -> Run:
    """Opens the run of ``config``, freezing the configuration on first use. Raises UserError as
    ``check`` does.
    """
    run = check(config)
    if not run.config.exists():
        with file_errors(run.root):
            configs.write(config, run.config)
    return run


def _key(word: str) -> str:
    return word.partition("=")[0]


def _frozen(key: str, frozen: DictConfig) -> str:
    """Returns the override that sets ``key`` to the run's own value."""
    value = OmegaConf.select(frozen, key)
    if key in verbatim.TEXTS:
        return f"{key}={'null' if value is None else value}"
    return f"{key}={_written(OmegaConf.to_object(value) if OmegaConf.is_config(value) else value)}"


def _written(value: Any) -> str:
    """Returns a value in the syntax of Hydra's overrides."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_written, value)) + "]"
    if isinstance(value, str):
        return "'" + value.replace("'", "\\'") + "'"
    return "null" if value is None else str(value).lower()
