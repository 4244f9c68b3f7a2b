"""``warmstart prefetch``: downloads what a recipe needs from the hub, each at a fixed commit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from common.errors import UserError, first_line
from common.files import file_errors, write_json
from data_prep.benchmarks import download, sets
from data_prep.benchmarks.known import BENCHMARKS
from data_prep.output.folder import dataset_folder
from data_prep.source import hub
from data_prep.source import source as sources

MODEL_AND_TOKENIZER = ("*.json", "*.safetensors", "*.txt", "*.jinja")
"""Weights, configurations and tokenizer; no pickles."""


def prefetch(config: DictConfig) -> dict[str, str]:
    """Fetches model, dataset, benchmarks and seeds; returns the commits as recipe keys and values.

    Local models and data, and existing files, are skipped. The commits are written to
    ``<data.dir>/<data.name>.prefetch.json``.
    Raises UserError when a download fails.
    """
    pins: dict[str, str] = {}
    fetched: dict[str, Any] = {"benchmarks": _benchmarks(config)} | _seeds(config)
    if config.model.init is None and not Path(config.model.path).is_dir():
        pins["model.revision"] = _model(config.model.path, config.model.revision)
    data = config.data
    source = sources.Source(data.source, data.hub_config, data.revision, data.split)
    if source.is_hub:
        _, pins["data.revision"] = hub.download(
            source.name, source.hub_config, source.split, source.revision
        )
    with file_errors(Path(data.dir)):
        write_json(Path(data.dir) / f"{data.name}.prefetch.json", pins | fetched)
    return pins


def _model(name: str, revision: str | None) -> str:
    """Fetches a model into the hub's cache; returns its commit."""
    from httpx import HTTPError
    from huggingface_hub import snapshot_download

    try:
        folder = Path(
            snapshot_download(name, revision=revision, allow_patterns=list(MODEL_AND_TOKENIZER))
        )
    except (OSError, ValueError, HTTPError) as e:
        raise UserError(
            f"model.path={name} (revision {revision}) could not be downloaded from the hub: "
            f"{first_line(e)}"
        ) from e
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"model.path={name} has no safetensors files: choose one that has")
    return folder.name


def _benchmarks(config: DictConfig) -> dict[str, str]:
    """Fetches the missing sets for evaluation and decontamination; returns the commits by set."""
    folder = Path(config.eval.benchmarks)
    names = sets.expand([*config.eval.sets, *config.data.decontaminate])
    if folder == dataset_folder(config):  # the dataset's own held-out problems
        return {}
    return {
        name: download.fetch(folder, name)
        for name in names
        if not (folder / f"{name}.jsonl").exists()
    }


def _seeds(config: DictConfig) -> dict[str, str]:
    """Fetches the seeds of a synthetic source if they are a known set; returns the commit."""
    path = Path(config.data.synth.seeds)
    known = path.suffix == ".jsonl" and path.stem in BENCHMARKS
    if config.data.source != "synthetic" or path.exists() or not known:
        return {}
    return {"data.synth.seeds": download.fetch(path.parent, path.stem)}
