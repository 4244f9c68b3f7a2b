"""The configuration of a run, frozen at its first start: later attempts may change only mutable
keys. The run's folder may be moved and renamed: it is where it is found, not where the file says.
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from common.errors import UserError
from common.files import file_errors
from trainer.recipe import load as configs
from trainer.recipe.relocate import move_run
from trainer.run.folder import Run


def read(run: Run, file: Path | None = None) -> DictConfig:
    """Returns the run's frozen configuration, or the one in ``file`` that an attempt executed, with
    the run at its present place.

    Raises UserError when there is no such file.
    """
    config = configs.read(file or run.config)
    if Run.of(config).root.absolute() == run.root.absolute():
        return config
    return move_run(config, str(run.root.parent), run.name)


def check(config: DictConfig) -> Run:
    """Returns the run of ``config``, which need not exist yet.

    Raises UserError when it was started with other values of keys that may not change.
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
