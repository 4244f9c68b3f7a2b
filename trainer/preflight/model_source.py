"""Checks whether the model of a recipe can be loaded, and finds the length of its context."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from common.errors import UserError
from common.files import read_object
from common.text import from_here
from trainer.export.hub_upload import MODEL
from trainer.preflight import find_run, hub_answer
from trainer.preflight.hub_answer import CONFIG
from trainer.recipe import site

CONTEXT = "max_position_embeddings"
RANDOM_CONTEXT = 32_768
"""Context of a random model whose ``model.init`` sets none: transformers' default."""
_ON_HUB = re.compile(r"[\w.-]+/[\w.-]+")
WEIGHTS = ("*.safetensors", "*.bin")


def check(config: DictConfig) -> None:
    """Raises UserError unless ``model.path`` is the folder of a model, or a model on the hub or in
    its cache. A random model (``model.init``) is built when it is missing.
    """
    if config.model.init is None:
        check_path(config.model.path, config.model.revision, "model.path=")


def check_path(path: str, revision: str | None, prefix: str = "") -> None:
    """Raises UserError as ``check`` does; ``prefix`` stands before the path in the message."""
    folder = Path(path)
    if folder.is_dir():
        _check_folder(folder, f"{prefix}{path}")
    elif not prefix and find_run.is_recipe(path):
        raise UserError(find_run.of_recipe(path))
    elif folder.exists():
        raise UserError(f"{prefix}{path} is a file: give the folder of a model, or OWNER/NAME")
    elif not is_on_hub(path):
        what = "a folder" if prefix else "a run, a folder"
        raise UserError(
            f"{prefix}{path} is neither {what} nor OWNER/NAME on the hub"
            f"{from_here(path) if prefix else ''}{find_run.near(path)}"
        )
    elif hub_answer.cached_model(path, revision) is None:
        try:
            hub_answer.check(path, revision, MODEL)
        except UserError as e:
            raise UserError(f"{prefix}{path}{e}{find_run.near(path)}") from e


def is_on_hub(path: str) -> bool:
    """Returns whether a word can only be a model on the hub: OWNER/NAME, and neither a path on this
    machine nor one among the runs.
    """
    place = Path(path)
    return (
        bool(_ON_HUB.fullmatch(path))
        and not place.exists()
        and place.parent not in (site.runs(), Path("runs"), Path(".."), Path("."))
    )


def context(config: DictConfig) -> int | None:
    """Returns the model's context in tokens; None if that is not known. Fetches the configuration
    of a model on the hub.
    """
    model = config.model
    if model.context is not None:
        return model.context
    folder = Path(model.path)
    file: Path | None = folder / CONFIG
    if not folder.is_dir():
        if model.init is not None:
            return dict(model.init).get(CONTEXT, RANDOM_CONTEXT)
        on_hub = is_on_hub(model.path)
        file = hub_answer.config_file(model.path, model.revision) if on_hub else None
    if file is None or not file.exists():
        return None
    found: Any = read_object(file).get(CONTEXT)
    return found if isinstance(found, int) else None


def _check_folder(folder: Path, shown: str) -> None:
    if not (folder / CONFIG).exists():
        raise UserError(
            f"{shown} is not a model: the folder has no {CONFIG} (an export is in RUN/export/)"
        )
    if "model_type" not in read_object(folder / CONFIG):
        raise UserError(
            f"{folder / CONFIG} is not the configuration of a model: it has no model_type"
        )
    if not any(path for pattern in WEIGHTS for path in folder.glob(pattern)):
        raise UserError(f"{shown} has no weights (*.safetensors): copy or download it again")
