"""Training state on disk: safetensors shards through torch's distributed checkpoint, scalars in JSON.

Nothing is unpickled on load: the reader takes the layout from the safetensors headers. A checkpoint is
written beside its place, then renamed; ``latest`` moves last.
"""

from __future__ import annotations

import shutil
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from data_prep.files import MANIFEST, read_json, sha256_file, write_json, write_text
from trainer.rundir import SCALARS, Run

_FLAT = StateDictOptions(flatten_optimizer_state_dict=True)


def save(run: Run, step: int, engine: Any, scalars: dict[str, Any]) -> None:
    """Writes checkpoints/step_N from all ranks; collective, and complete on every rank when it returns."""
    final = run.checkpoint(step)
    partial = final.with_name(f".{final.name}.partial")
    if dist.get_rank() == 0:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    dist.barrier()
    model, optimizer, numbers = _state(engine)
    for name, tensors in (("model", model), ("optimizer", optimizer)):
        writer = dcp.HuggingFaceStorageWriter(str(partial / name), save_distributed=True)
        dcp.save(tensors, storage_writer=writer)
    own = partial.glob(f"*/shard-{dist.get_rank() + 1:05}-*")
    hashes: list[dict[str, str]] = [{}] * dist.get_world_size()
    dist.all_gather_object(hashes, {str(p.relative_to(partial)): sha256_file(p) for p in own})
    if dist.get_rank() == 0:
        state = {"step": step, "scheduler": engine.lr_scheduler.state_dict(), "optimizer": numbers, **scalars}
        write_json(partial / SCALARS, state)
        files = {SCALARS: sha256_file(partial / SCALARS)}
        for part in hashes:
            files |= part
        write_json(partial / MANIFEST, {"step": step, "files": dict(sorted(files.items()))})
        partial.rename(final)
        write_text(run.latest, f"{final.name}\n")
    dist.barrier()


def load(run: Run, step: int, engine: Any) -> dict[str, Any]:
    """Restores checkpoints/step_N into the engine; returns the scalars it was saved with."""
    folder = run.checkpoint(step)
    model, optimizer, _ = _state(engine)
    for name, tensors in (("model", model), ("optimizer", optimizer)):
        dcp.load(tensors, storage_reader=dcp.HuggingFaceStorageReader(str(folder / name)))
    state = read_json(folder / SCALARS)
    options = StateDictOptions(strict=False)
    set_model_state_dict(engine.module, model, options=options)
    numbers = {k: torch.tensor(v) if k.endswith(".step") else v for k, v in state["optimizer"].items()}
    set_optimizer_state_dict(engine.module, engine.optimizer, {**optimizer, **numbers}, options=_FLAT)
    engine.lr_scheduler.load_state_dict(state["scheduler"])
    return state


def _state(engine: Any) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, Any]]:
    """(model tensors without the tied head, optimizer tensors, optimizer scalars), keyed by parameter name."""
    model = get_model_state_dict(engine.module)
    if engine.module.config.tie_word_embeddings:
        model.pop("lm_head.weight", None)
    flat = get_optimizer_state_dict(engine.module, engine.optimizer, options=_FLAT)
    tensors = {k: v for k, v in flat.items() if isinstance(v, torch.Tensor) and v.dim() > 0}
    numbers = {k: v.item() if isinstance(v, torch.Tensor) else v for k, v in flat.items() if k not in tensors}
    return model, tensors, numbers
