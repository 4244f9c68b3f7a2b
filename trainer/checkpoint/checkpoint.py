"""Training state on disk: one folder of safetensors shards through torch's distributed checkpoint, and JSON.

    step_N/shard-R-model-F-of-N.safetensors   rank R's tensors; the optimizer's names start with ``optimizer.``
    step_N/rank-R.json                        rank R's random number generators
    step_N/state.json                         step, scheduler, optimizer's numbers, identity, metrics
    step_N/manifest.json                      SHA-256 of every other file, seconds the save took

Everything is written beside its place, hashed and flushed, then renamed; ``latest`` moves last. Nothing is
unpickled on load: the reader takes the layout from the safetensors headers, and ``.metadata`` is neither written
nor read. Tied weights are stored once.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from common.files import MANIFEST, fsync, read_json, sha256_file, write_json, write_text
from trainer.checkpoint import rng
from trainer.run.folder import FILE_BYTES, SCALARS, Run

OPTIMIZER = "optimizer."
"""What the optimizer's tensors are prefixed with; the model's have the names that transformers gives them."""

_FLAT = StateDictOptions(flatten_optimizer_state_dict=True)


def state(engine: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """(tensors of model and optimizer by name in the checkpoint, the optimizer's numbers by name in torch's).

    Of the model what is trained, and each tensor once: a tied head is under the embedding's name.
    """
    whole = engine.module.state_dict()  # FSDP2 shards by this what a validation has left gathered
    tensors = {name: whole[name] for name, p in engine.module.named_parameters() if p.requires_grad}
    numbers = {}
    for name, value in get_optimizer_state_dict(engine.module, engine.optimizer, options=_FLAT).items():
        if isinstance(value, torch.Tensor) and value.dim() > 0:
            tensors[OPTIMIZER + name] = value
        else:
            numbers[name] = value.item() if isinstance(value, torch.Tensor) else value
    return tensors, numbers


def load(folder: Path, engine: Any, seed: int, group: dist.ProcessGroup | None = None) -> dict[str, Any]:
    """Restores a checkpoint into the engine and this process's generators; returns its state.json. Collective.

    Tensors are resharded to the ranks that there are. A rank whose like was not there when the checkpoint was
    saved, because their number was another, has its generators seeded from (seed, step, rank).
    """
    tensors, _ = state(engine)
    dcp.load(tensors, storage_reader=dcp.HuggingFaceStorageReader(str(folder)), process_group=group)
    saved = read_json(folder / SCALARS)
    optimizer = {k.removeprefix(OPTIMIZER): v for k, v in tensors.items() if k.startswith(OPTIMIZER)}
    # torch counts an optimizer's steps in a tensor of a float, bitsandbytes in an integer.
    counts = {k: torch.tensor(v) for k, v in saved["optimizer"].items() if k.endswith(".step") and isinstance(v, float)}
    numbers = saved["optimizer"] | counts
    set_optimizer_state_dict(engine.module, engine.optimizer, {**optimizer, **numbers}, options=_FLAT)
    engine.lr_scheduler.load_state_dict(saved["scheduler"])
    if saved["ranks"] == dist.get_world_size():
        rng.restore(read_json(folder / rank_file(dist.get_rank())))
    else:
        rng.seed(seed, saved["step"], dist.get_rank())
    return saved


def rank_file(rank: int) -> str:
    """Name of the file with what belongs to one rank alone."""
    return f"rank-{rank:05}.json"


def split(tensors: dict[str, torch.Tensor], ranks: int) -> dict[str, int]:
    """Tensor name -> number, from 1, of the file that its shards are in; a rank's file has about ``FILE_BYTES``."""
    files, number, size = {}, 1, 0
    for name, tensor in tensors.items():
        share = tensor.numel() * tensor.itemsize // ranks
        if size and size + share > FILE_BYTES:
            number, size = number + 1, 0
        files[name] = number
        size += share
    return files


class Writer(dcp.HuggingFaceStorageWriter):
    """Writes one checkpoint from all ranks; its last act, on the first rank, is to make it complete.

    torch calls ``write_data`` on every rank, then ``finish`` on the first one once all have written; an error in
    either is raised on every rank.
    """

    def __init__(self, run: Run, step: int, files: dict[str, int], shared: dict[str, Any], own: dict[str, Any]) -> None:
        """``files`` is ``split``'s, ``shared`` becomes state.json, ``own`` is this rank's generators."""
        self.run, self.step, self.shared, self.own = run, step, shared, own
        self.folder = run.partial_checkpoint(step)
        self.begin = time.monotonic()
        super().__init__(str(self.folder), fqn_to_index_mapping=files, save_distributed=True)
        # The tensors are in host memory. To copy ahead from a GPU, torch would wait for the current stream of device 0,
        # where training runs, and every rank of a node would open a context on that device.
        self.per_thread_copy_ahead = 0

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Writes and flushes this rank's files; the result names each with its size and SHA-256."""
        shards = {str(result.storage_data.relative_path) for result in super().write_data(plan, planner).value()}
        own = rank_file(dist.get_rank())
        write_json(self.folder / own, self.own)
        future: Future[list[WriteResult]] = Future()
        future.set_result([self._hashed(name) for name in (*sorted(shards), own)])
        return future

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Writes state.json and the manifest, puts the folder in its place and points ``latest`` at it."""
        write_json(self.folder / SCALARS, self.shared)
        written = [self._hashed(SCALARS), *(file for rank in results for file in rank)]
        hashes = {file.index.fqn: file.storage_data for file in sorted(written, key=lambda file: file.index.fqn)}
        seconds = time.monotonic() - self.begin
        write_json(self.folder / MANIFEST, {"step": self.step, "seconds": seconds, "files": hashes})
        fsync(self.folder)
        final = self.run.checkpoint(self.step)
        self.folder.rename(final)
        fsync(final.parent)
        write_text(self.run.latest, f"{final.name}\n")

    def _hashed(self, name: str) -> WriteResult:
        path = self.folder / name
        return WriteResult(MetadataIndex(name), path.stat().st_size, sha256_file(path))
