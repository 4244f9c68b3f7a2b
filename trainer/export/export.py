"""Exports a checkpoint as a Hugging Face folder: bf16 safetensors, config, tokenizer with template,
both end tokens.

Runs on the CPU in its own process (``warmstart export RUN STEP``), also during training: it reads a
complete checkpoint, and its lease keeps that from being pruned meanwhile. Tensors are read, merged
with a QLoRA's adapters and rounded one by one, so that memory holds one output file and one tensor
at a time.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from common import provenance
from common.errors import UserError
from common.files import (
    MANIFEST,
    in_turn,
    read_json,
    sha256_file,
    verify,
    whole_folder,
    write_json,
)
from data_prep.benchmarks import sets
from data_prep.tokenizer import tokenizers
from data_prep.tokenizer.chat import export_template
from trainer.engine.adapters import MERGE_BASE, merged_base
from trainer.export.compatibility import widen
from trainer.run.folder import SCALARS, Run, is_complete
from trainer.run.trained_from import tokenizer_folder

if TYPE_CHECKING:
    from trainer.export.weights import Weights


def export(run: Run, config: DictConfig, step: int) -> Path:
    """Writes export/step_N from checkpoints/step_N; returns its folder. A complete export is left
    unchanged; if another process is writing it, waits for that process.

    Raises UserError when the checkpoint does not exist or is damaged, and when the complete export
    has another merge_base.
    """
    folder = run.export(step)
    if not is_complete(folder):
        _check_there(run, step)
        tokenizer = tokenizers.load(tokenizer_folder(config))
        with in_turn(run.export_lease(step)):
            if not is_complete(folder):
                check_absent(folder)
                # Checked again: only under the lease is it safe from pruning.
                _check_there(run, step)
                verify(run.checkpoint(step))
                _export(run, config, step, tokenizer, folder)
    check_same_base(folder, config)
    return folder


def check_absent(folder: Path) -> None:
    """Raises UserError when the folder of an export to write already exists."""
    if folder.exists():
        raise UserError(
            f"{folder} is not a complete export (it has no {MANIFEST}): move it away, then run the "
            "command again"
        )


def check_same_base(folder: Path, config: DictConfig) -> None:
    """Raises UserError when a QLoRA's export was merged with another ``export.merge_base``."""
    merged, wanted = merged_base(read_json(folder / MANIFEST)), config.export.merge_base
    if config.train.lora_rank and merged != wanted:
        raise UserError(
            f"{folder} was merged with export.merge_base={merged}, not {wanted}: delete that "
            f"folder to export it again, or set export.merge_base={merged}"
        )


def _check_there(run: Run, step: int) -> None:
    if step not in run.checkpoints:
        found = ", ".join(map(str, run.checkpoints)) or "none"
        raise UserError(f"{run.root} has no complete checkpoint of step {step} (complete: {found})")


def write_model(
    config: DictConfig, tokenizer: Any, weights: Weights, folder: Path
) -> dict[str, Any]:
    """Writes weights in bf16, config, tokenizer with template and generation config into
    ``folder``; returns the manifest's part about them.
    """
    from trainer.export.weights import write

    parameters = write(weights, folder)
    _configs(config, tokenizer, folder)
    tokenizer.chat_template = export_template(config.data.system)
    tokenizer.save_pretrained(str(folder))
    widen(folder)
    files = sorted(p for p in folder.iterdir() if p.is_file())
    for path in files:
        # safetensors makes its files readable by the owner only.
        path.chmod(folder.stat().st_mode & 0o666)
    return {
        "parameters": parameters,
        "files": {p.name: sha256_file(p) for p in files},
        "versions": provenance.versions(),
    }


def _export(run: Run, config: DictConfig, step: int, tokenizer: Any, folder: Path) -> None:
    state = read_json(run.checkpoint(step) / SCALARS)
    with whole_folder(folder) as partial:
        weights = trained_weights(config, run.checkpoint(step))
        made = write_model(config, tokenizer, weights, partial)
        write_json(
            partial / MANIFEST,
            {
                "run": run.name,
                "step": step,
                **merge_fact(config),
                "checkpoint": sha256_file(run.checkpoint(step) / MANIFEST),
                "dataset": state["identity"]["dataset"],
                **made,
            },
        )


def merge_fact(config: DictConfig) -> dict[str, str]:
    """Returns a manifest's entry on a QLoRA's merge; empty for full-parameter training."""
    return {MERGE_BASE: config.export.merge_base} if config.train.lora_rank else {}


def trained_weights(config: DictConfig, checkpoint: Path) -> Weights:
    """Returns the weights of a checkpoint, a QLoRA's adapters merged into the base."""
    from trainer.export.weights import Trained

    trained = Trained(checkpoint)
    if not config.train.lora_rank:
        return trained
    from trainer.export.merge_qlora import Merged

    return Merged(config, trained)


def _configs(config: DictConfig, tokenizer: Any, folder: Path) -> None:
    from transformers import AutoConfig, GenerationConfig

    ends = tokenizers.end_tokens(tokenizer)
    model = AutoConfig.from_pretrained(
        config.model.path, revision=config.model.revision, trust_remote_code=False
    )
    model.dtype = "bfloat16"
    model.eos_token_id, model.pad_token_id = ends[0], ends[1]
    model.max_position_embeddings = config.model.context or model.max_position_embeddings
    model.save_pretrained(folder)
    _, temperature = sets.protocol(
        list(config.eval.sets), config.eval.rollouts, config.eval.temperature
    )
    # top_k 0, because transformers' default of 50 is not how the evaluation samples.
    drawn = (
        {"temperature": temperature, "top_p": config.eval.top_p, "top_k": 0} if temperature else {}
    )
    GenerationConfig(
        do_sample=bool(drawn),
        **drawn,
        eos_token_id=ends,
        pad_token_id=ends[1],
    ).save_pretrained(folder)
