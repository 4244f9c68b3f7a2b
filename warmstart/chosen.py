"""The recipe and the run that a command line names."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from common.progress import waiting

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from trainer.run.folder import Run


def config_of(recipe: str, overrides: Sequence[str]) -> DictConfig:
    """Returns the recipe's configuration with the site's choices and the overrides."""
    with waiting("reading the recipe"):
        from trainer.recipe import load as configs
        from trainer.run import frozen_config

        return frozen_config.choose(partial(configs.load, recipe), overrides)[1]


def run_of(name: str, overrides: Sequence[str] = ()) -> tuple[Run, DictConfig]:
    """Returns a run and its frozen configuration, with overrides of its mutable keys. Raises
    UserError when there is no such run, naming the nearest.
    """
    with waiting("reading the run"):
        from trainer.preflight import find_run
        from trainer.recipe import load as configs
        from trainer.run import frozen_config

        run = find_run.find(name)
        config = frozen_config.read(run)
        return run, configs.amend(config, overrides) if overrides else config
