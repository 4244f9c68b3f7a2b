"""Checkpoint -> Hugging Face folder: bf16 safetensors, config, tokenizer with template, both end tokens.

Runs on the CPU in a process of its own (``warmstart export RUN STEP``), beside a training run if need be: it
reads a complete checkpoint, whose lease keeps it from being pruned meanwhile. Tensors are read and rounded
one by one, so that memory holds one output file and one tensor of the checkpoint, whatever the model's size.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from data_prep import provenance, vocabulary
from data_prep.files import MANIFEST, read_json, sha256_file, verify, whole_folder, write_json, writer
from trainer.rundir import SCALARS, Run, is_complete

SHARD_SIZE = "1GB"
"""Of a weights file: what an export needs in memory besides the largest tensor."""


def export(run: Run, config: DictConfig, step: int) -> Path:
    """Writes export/step_N from checkpoints/step_N; returns its folder. A complete one is left as it is.

    Raises ValueError when there is no such checkpoint, it is damaged, or another process is exporting it.
    """
    folder = run.export(step)
    if is_complete(folder):
        return folder
    _check_there(run, step)
    tokenizer = vocabulary.load(Path(config.verl.model.tokenizer_path))
    with writer(run.export_lease(step)):
        if not is_complete(folder):
            # Under the lease, which is what keeps it from being pruned.
            _check_there(run, step)
            verify(run.checkpoint(step))
            _export(run, config, step, tokenizer, folder)
    return folder


def _check_there(run: Run, step: int) -> None:
    if step not in run.checkpoints:
        found = ", ".join(map(str, run.checkpoints)) or "none"
        raise ValueError(f"{run.root} has no complete checkpoint of step {step} (complete: {found})")


def _export(run: Run, config: DictConfig, step: int, tokenizer: Any, folder: Path) -> None:
    state = read_json(run.checkpoint(step) / SCALARS)
    with whole_folder(folder) as partial:
        parameters = _weights(run.checkpoint(step), partial)
        _configs(config, tokenizer, partial)
        tokenizer.save_pretrained(str(partial))
        files = sorted(p for p in partial.iterdir() if p.is_file())
        for path in files:
            # safetensors lets nobody but the owner read what it writes.
            path.chmod(partial.stat().st_mode & 0o666)
        write_json(
            partial / MANIFEST,
            {
                "run": run.name,
                "step": step,
                "parameters": parameters,
                "checkpoint": sha256_file(run.checkpoint(step) / MANIFEST),
                "dataset": state["identity"]["dataset"],
                "files": {p.name: sha256_file(p) for p in files},
                "versions": provenance.versions(),
            },
        )


def _weights(checkpoint: Path, folder: Path) -> int:
    """Writes the weights that ``checkpoint`` holds; returns the number of parameters, a tied head counted once."""
    import torch
    import torch.distributed.checkpoint as dcp
    from huggingface_hub import split_torch_state_dict_into_shards
    from safetensors.torch import save_file

    from trainer.checkpoint import OPTIMIZER

    class Shards(dcp.HuggingFaceStorageReader):
        """Keeps the layout, which torch would read from all files' headers again for each tensor."""

        def read_metadata(self, *args: Any, **kwargs: Any) -> Any:
            return metadata

    def rounded(name: str) -> Any:
        tensor = torch.empty(sizes[name], dtype=torch.bfloat16)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            dcp.load({name: tensor}, storage_reader=Shards(str(checkpoint)), no_dist=True)
        return tensor

    metadata = dcp.HuggingFaceStorageReader(str(checkpoint)).read_metadata()
    stored = metadata.state_dict_metadata.items()
    sizes = {name: tensor.size for name, tensor in stored if not name.startswith(OPTIMIZER)}
    shapes = {name: torch.empty(size, dtype=torch.bfloat16, device="meta") for name, size in sizes.items()}
    split = split_torch_state_dict_into_shards(shapes, max_shard_size=SHARD_SIZE)
    for filename, names in split.filename_to_tensors.items():
        save_file({name: rounded(name) for name in names}, folder / filename, metadata={"format": "pt"})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        write_json(folder / "model.safetensors.index.json", index)
    return sum(math.prod(size) for size in sizes.values())


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
        # Else transformers samples from the 50 likeliest tokens, which the evaluation does not.
        top_k=0,
        eos_token_id=ends,
        pad_token_id=ends[1],
    ).save_pretrained(folder)
