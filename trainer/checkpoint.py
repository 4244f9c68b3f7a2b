"""Training state on disk: safetensors shards through torch's distributed checkpoint, scalars in JSON.

Nothing is unpickled on load: the reader takes the layout from the safetensors headers. A checkpoint is
written beside its place, then renamed; ``latest`` moves last.
"""

from __future__ import annotations

import shutil
from pathlib import Path
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
from trainer.rundir import Run

SCALARS = "state.json"
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
    dist.barrier()
    if dist.get_rank() == 0:
        state = {"step": step, "scheduler": engine.lr_scheduler.state_dict(), "optimizer": numbers, **scalars}
        write_json(partial / SCALARS, {k: v for k, v in state.items() if k != "lr_lambdas"})
        files = sorted(p for p in partial.rglob("*") if p.is_file())
        write_json(
            partial / MANIFEST,
            {"step": step, "files": {str(p.relative_to(partial)): sha256_file(p) for p in files}},
        )
        partial.rename(final)
        write_text(run.latest, f"{final.name}\n")
    dist.barrier()


def load(run: Run, step: int, engine: Any) -> dict[str, Any]:
    """Restores checkpoints/step_N into the engine; returns the scalars it was saved with.

    Raises ValueError when a file is missing or differs from the manifest.
    """
    folder = run.checkpoint(step)
    if dist.get_rank() == 0:
        verify(folder)
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


def verify(folder: Path) -> None:
    """Raises ValueError when a file of a checkpoint is missing or its hash differs from the manifest."""
    for name, wanted in read_json(folder / MANIFEST)["files"].items():
        path = folder / name
        if not path.exists() or sha256_file(path) != wanted:
            raise ValueError(f"{path} is missing or damaged: delete {folder} to go on from the checkpoint before it")


def _state(engine: Any) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, Any]]:
    """(model tensors without the tied head, optimizer tensors, optimizer scalars), keyed by parameter name."""
    model = get_model_state_dict(engine.module)
    if engine.module.config.tie_word_embeddings:
        model.pop("lm_head.weight", None)
    flat = get_optimizer_state_dict(engine.module, engine.optimizer, options=_FLAT)
    tensors = {k: v for k, v in flat.items() if isinstance(v, torch.Tensor) and v.dim() > 0}
    numbers = {k: v.item() if isinstance(v, torch.Tensor) else v for k, v in flat.items() if k not in tensors}
    return model, tensors, numbers
