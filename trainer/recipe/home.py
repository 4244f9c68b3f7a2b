"""Paths of a recipe that begin with ``~``, the home folder, which shells do not expand after
``key=``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

PATHS = (
    *("model.path", "data.dir", "data.source", "data.synth.seeds", "eval.benchmarks"),
    "run.root",
)


def typed(override: str) -> str:
    """Returns a ``key=value`` word whose path no longer begins with ``~``."""
    key, _, value = override.partition("=")
    return f"{key}='{_absolute(value)}'" if key in PATHS and value.startswith("~") else override


def expand(config: DictConfig) -> None:
    """Replaces ``~`` at the beginning of the configuration's paths."""
    raw = OmegaConf.to_container(config, resolve=False)
    for key in PATHS:
        value: Any = raw
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if isinstance(value, str) and value.startswith("~"):
            OmegaConf.update(config, key, _absolute(value))


def _absolute(path: str) -> str:
    return str(Path(path).expanduser())
