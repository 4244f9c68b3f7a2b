"""Exports an average of a run's steps as a Hugging Face folder, with the same files as the export
of a step.

A member is read from its checkpoint in fp32 if that still exists, otherwise from its bf16 export.
For a QLoRA, the merged weights are averaged, not the adapters, because the mean of products is not
the product of the means.
"""

from __future__ import annotations

from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from common import provenance
from common.errors import UserError
from common.files import (
    MANIFEST,
    read_json,
    sha256_file,
    verify,
    whole_folder,
    write_json,
    write_lock,
)
from data_prep.tokenizer import tokenizers
from trainer.export.average_recipe import AverageRecipe
from trainer.export.export import (
    check_absent,
    check_same_base,
    merge_fact,
    trained_weights,
    write_model,
)
from trainer.run.folder import SCALARS, Run, is_complete
from trainer.run.model_label import ModelLabel
from trainer.run.trained_from import model_folder, model_identity, tokenizer_folder

if TYPE_CHECKING:
    from trainer.export.weights import Weights

CHECKPOINT, EXPORT = "checkpoint", "export"
"""Where the weights of a member come from."""


def steps_there(run: Run) -> list[int]:
    """Returns the steps that can be averaged: those with a complete checkpoint or export."""
    return sorted({*run.checkpoints, *run.exports})


def existing(run: Run, config: DictConfig, label: ModelLabel) -> Path:
    """Returns the folder of an average that was exported before. Raises UserError when it does not
    exist, or when it is a QLoRA's and was merged with another merge_base.
    """
    folder = run.export(label)
    if not is_complete(folder):
        raise UserError(
            f"{run.root} has no export of {label.word} any more: make it again with warmstart "
            f"export {run.root} --average STEP,STEP"
        )
    check_same_base(folder, config)
    return folder


def export(run: Run, config: DictConfig, recipe: AverageRecipe, label: ModelLabel) -> Path:
    """Writes export/avg_NAME; returns its folder. A complete export of the same recipe is left
    unchanged.

    Raises UserError when another recipe has the name; when a member is missing, damaged or being
    exported by another process; when the base model is missing or has another shape; and when a
    QLoRA's exports were merged with another merge_base.
    """
    folder = run.export(label)
    if is_complete(folder):
        _check_same_recipe(folder, recipe, label)
        check_same_base(folder, config)
        return folder
    tokenizer = tokenizers.load(tokenizer_folder(config))
    with ExitStack() as locks:
        # The members' leases keep them from being pruned.
        for model in (*map(ModelLabel, recipe.steps), label):
            locks.enter_context(write_lock(run.export_lease(model)))
        if not is_complete(folder):
            check_absent(folder)
            _export(run, config, recipe, label, tokenizer)
    return folder


def _check_same_recipe(folder: Path, recipe: AverageRecipe, label: ModelLabel) -> None:
    made = read_json(folder / MANIFEST)["average"]
    there = {
        "members": [{key: m[key] for key in ("step", "weight")} for m in made["members"]],
        "base": made["base"],
    }
    if there != recipe.to_json():
        members = ", ".join(f"{m['step']}:{m['weight']}" for m in there["members"])
        raise UserError(
            f"{folder} is another average ({members}, base {there['base']}): choose another --name "
            f"than {label.word}, or delete that folder"
        )


def _export(
    run: Run, config: DictConfig, recipe: AverageRecipe, label: ModelLabel, tokenizer: Any
) -> None:
    from trainer.export.average_weights import Average

    facts: list[dict[str, Any]] = []
    terms: list[tuple[Fraction, Weights]] = []
    for step, part in recipe.weights:
        source, weights = _member(run, config, step)
        origin = run.checkpoint(step) if source == CHECKPOINT else run.export(step)
        terms.append((part * (1 - recipe.base), weights))
        manifest = sha256_file(origin / MANIFEST)
        facts.append({"step": step, "weight": str(part), "source": source, "manifest": manifest})
    average: dict[str, Any] = {"members": facts, "base": str(recipe.base)}
    if recipe.base:
        path, revision = config.model.path, config.model.revision
        average["base_model"] = model_identity(path, revision)
        terms.append((recipe.base, _base(config, terms[0][1])))
    with whole_folder(run.export(label)) as partial:
        made = write_model(config, tokenizer, Average(terms), partial)
        write_json(
            partial / MANIFEST,
            {
                "run": run.name,
                "step": recipe.steps[-1],
                "average": average,
                **merge_fact(config),
                "dataset": _dataset(run, recipe.steps[-1]),
                **made,
                "git": provenance.git_commit(),
            },
        )


def _member(run: Run, config: DictConfig, step: int) -> tuple[str, Weights]:
    """Returns (source of a member's weights, the weights)."""
    from trainer.export.weights import Saved

    if step in run.checkpoints:
        verify(run.checkpoint(step))
        return CHECKPOINT, trained_weights(config, run.checkpoint(step))
    folder = run.export(step)
    if not is_complete(folder):
        there = ", ".join(map(str, steps_there(run))) or "none"
        raise UserError(
            f"{run.root} has no checkpoint and no export of step {step} (available: {there})"
        )
    check_same_base(folder, config)
    verify(folder)
    return EXPORT, Saved(folder)


def _base(config: DictConfig, member: Weights) -> Weights:
    from trainer.export.weights import Saved

    folder = model_folder(config.model.path, config.model.revision)
    base = Saved(folder)
    for name, size in member.sizes.items():
        if base.sizes.get(name) != size:
            found = list(base.sizes[name]) if name in base.sizes else "absent"
            raise UserError(
                f"{folder} is not this run's base model: {name} is {found} there and {list(size)} "
                "in the run's members; set model.path to the base model's folder"
            )
    return base


def _dataset(run: Run, step: int) -> str:
    if step in run.checkpoints:
        return read_json(run.checkpoint(step) / SCALARS)["identity"]["dataset"]
    return read_json(run.export(step) / MANIFEST)["dataset"]
