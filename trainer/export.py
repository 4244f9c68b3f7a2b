"""Checkpoint -> Hugging Face folder: bf16 safetensors, config, tokenizer with template, both end tokens.

Tensors are read from the checkpoint's shards one output file at a time, so that memory holds one file's
worth of the model.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from data_prep import provenance, vocabulary
from data_prep.files import MANIFEST, read_json, sha256_file, whole_folder, write_json, writer
from trainer.rundir import SCALARS, Run, is_complete

SHARD_SIZE = "5GB"


def export(run: Run, config: DictConfig, step: int) -> Path:
    """Writes export/step_N from checkpoints/step_N; returns its folder. A complete one is left as it is.

    Raises ValueError when there is no such checkpoint.
    """
    folder = run.export(step)
    if is_complete(folder):
        return folder
    if step not in run.checkpoints:
        found = ", ".join(map(str, run.checkpoints)) or "none"
        raise ValueError(f"{run.root} has no complete checkpoint of step {step} (complete: {found})")
    tokenizer = vocabulary.load(Path(config.verl.model.tokenizer_path))
    with writer(folder.with_name(f".{folder.name}.lock")):
        if not is_complete(folder):
            _export(run, config, step, tokenizer, folder)
    return folder


def _export(run: Run, config: DictConfig, step: int, tokenizer: Any, folder: Path) -> None:
    state = read_json(run.checkpoint(step) / SCALARS)
    with whole_folder(folder) as partial:
        _weights(run.checkpoint(step) / "model", partial)
        _configs(config, tokenizer, partial)
        tokenizer.save_pretrained(str(partial))
        files = sorted(p for p in partial.iterdir() if p.is_file())
        write_json(
            partial / MANIFEST,
            {
                "run": run.name,
                "step": step,
                "checkpoint": sha256_file(run.checkpoint(step) / MANIFEST),
                "dataset": state["dataset"],
                "files": {p.name: sha256_file(p) for p in files},
                "versions": provenance.versions(),
            },
        )


def _weights(shards: Path, folder: Path) -> None:
    import torch
    import torch.distributed.checkpoint as dcp
    from huggingface_hub import split_torch_state_dict_into_shards
    from safetensors.torch import save_file

    reader = dcp.HuggingFaceStorageReader(str(shards))
    layout = reader.read_metadata().state_dict_metadata
    shapes = {name: torch.empty(meta.size, dtype=torch.bfloat16, device="meta") for name, meta in layout.items()}
    split = split_torch_state_dict_into_shards(shapes, max_shard_size=SHARD_SIZE)
    for filename, names in split.filename_to_tensors.items():
        tensors = {n: torch.empty(layout[n].size, dtype=layout[n].properties.dtype) for n in names}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            dcp.load(tensors, storage_reader=dcp.HuggingFaceStorageReader(str(shards)), no_dist=True)
        save_file(
            {n: t.to(torch.bfloat16) for n, t in tensors.items()},
            folder / filename,
            metadata={"format": "pt"},
        )
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        write_json(folder / "model.safetensors.index.json", index)


def _configs(config: DictConfig, tokenizer: Any, folder: Path) -> None:
    from transformers import AutoConfig, GenerationConfig

    ends = vocabulary.end_tokens(tokenizer)
    model = AutoConfig.from_pretrained(config.model.path, revision=config.model.revision)
    model.dtype = "bfloat16"
    model.eos_token_id, model.pad_token_id = ends[0], ends[1]
    model.max_position_embeddings = config.model.context or model.max_position_embeddings
    model.save_pretrained(folder)
    GenerationConfig(
        do_sample=True,
        temperature=config.eval.temperature,
        top_p=config.eval.top_p,
        eos_token_id=ends,
        pad_token_id=ends[1],
    ).save_pretrained(folder)
