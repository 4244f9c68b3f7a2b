"""Exports an RL checkpoint as a Hugging Face folder, with the same files as the export of an SFT
step.

verl saves the weights in fp32, and its config.json keeps only the tokenizer's end token. So only
the weights are taken from its folder; the rest is written as for SFT.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from common import provenance
from common.errors import UserError
from common.files import MANIFEST, read_json, whole_folder, write_json, write_lock
from data_prep.tokenizer import tokenizers
from trainer.export.export import check_absent, write_model
from trainer.run import rl_models
from trainer.run.folder import Run, is_complete
from trainer.run.model_label import ModelLabel
from trainer.run.rl_start import RlStart
from trainer.run.trained_from import dataset_identity, tokenizer_folder

SHAPE = ("architectures", "hidden_size", "num_hidden_layers", "vocab_size")
"""Keys of config.json whose values must be those of the run's model."""


def export(run: Run, config: DictConfig, label: ModelLabel) -> Path:
    """Writes export/rl_N-HASH from an RL checkpoint; returns its folder. A complete export is left
    unchanged.

    Raises UserError when the checkpoint does not exist, has no weights or is of another model, and
    when another process is exporting it.
    """
    folder = run.export(label)
    if is_complete(folder):
        return folder
    start = rl_models.start_of(run, label)
    _check_there(run, start, label)
    assert start is not None and label.rl is not None
    tokenizer = tokenizers.load(tokenizer_folder(config))
    with write_lock(run.export_lease(label)):
        if not is_complete(folder):
            check_absent(folder)
            try:
                _export(run, config, start, label.rl, tokenizer, folder)
            except FileNotFoundError as e:
                if start.weights(label.rl).exists():
                    raise
                raise UserError(
                    f"{start.weights(label.rl)} was deleted while it was read, because RL saved a "
                    f"newer checkpoint: warmstart export {run.root} rl-{start.steps[-1]}"
                ) from e
    return folder


def _check_there(run: Run, start: RlStart | None, label: ModelLabel) -> None:
    there = start.steps if start else []
    if start is None or label.rl not in there:
        words = ", ".join(f"rl-{step}-{label.start}" for step in there) or "none"
        raise UserError(
            f"{run.root} has no checkpoint of {label.word} any more, and no export (checkpoints: "
            f"{words}): export one of these, or keep more checkpoints of the next RL "
            "(trainer.max_actor_ckpt_to_keep=N)"
        )
    weights = start.weights(label.rl)
    if not list(weights.glob("*.safetensors")):
        raise UserError(
            f"{weights} has no weights: run RL with hf_model in "
            "actor_rollout_ref.actor.checkpoint.save_contents"
        )


def _export(
    run: Run, config: DictConfig, start: RlStart, step: int, tokenizer: Any, folder: Path
) -> None:
    from trainer.export.weights import Saved

    made = read_json(start.manifest)
    with whole_folder(folder) as partial:
        written = write_model(config, tokenizer, Saved(start.weights(step)), partial)
        _check_same_shape(start.weights(step), partial)
        write_json(
            partial / MANIFEST,
            {
                "run": run.name,
                "step": made["step"],
                "rl": {"step": step, **rl_models.facts(start)},
                "dataset": _dataset(run, config, made["step"]),
                **written,
                "git": provenance.git_commit(),
            },
        )


def _check_same_shape(weights: Path, folder: Path) -> None:
    theirs, ours = (read_json(path / "config.json") for path in (weights, folder))
    if other := [key for key in SHAPE if theirs.get(key) != ours.get(key)]:
        told = ", ".join(f"{key} {theirs.get(key)} instead of {ours.get(key)}" for key in other)
        raise UserError(
            f"{weights} is not a model of this run ({told}): RL was started with another "
            "actor_rollout_ref.model.path, so use that folder directly"
        )


def _dataset(run: Run, config: DictConfig, step: int) -> str:
    """Returns the hash of SFT's dataset; a start is only prepared while it is unchanged."""
    export = run.export(step)
    if is_complete(export):
        return read_json(export / MANIFEST)["dataset"]
    return dataset_identity(config)
