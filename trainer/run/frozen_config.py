"""The configuration of a run, frozen at its first start: later attempts may change only mutable
keys.
"""

from __future__ import annotations

from omegaconf import DictConfig

from common.errors import UserError
from common.files import file_errors
from trainer.recipe import load as configs
from trainer.run.folder import Run


def check(config: DictConfig) -> Run:
    """Returns the run of ``config``, which need not exist yet.

    Raises UserError when it was started with other values of keys that may not change.
    """
    run = Run.of(config)
    if not run.config.exists():
        return run
    changes = configs.immutable_changes(configs.read(run.config), config)
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
