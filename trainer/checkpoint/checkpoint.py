"""Training state on disk: a folder of safetensors shards (torch distributed checkpoint) and JSON
per checkpoint.

    step_N/shard-R-model-F-of-N.safetensors   rank R's tensors; names of the optimizer's tensors
                                              start with ``optimizer.``
    step_N/rank-R.json                        rank R's random number generators
    step_N/state.json                         step, scheduler, the optimizer's scalars, identity,
                                              metrics
    step_N/manifest.json                      SHA-256 of every other file, seconds of the save

Files are written to a temporary folder, hashed and fsynced; the folder is then renamed into place,
and ``latest`` is updated last. Nothing is unpickled on load: the reader takes the layout from the
safetensors headers, and ``.metadata`` is neither written nor read. Tied weights are stored once.
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
"""Prefix of the optimizer's tensor names; the model's tensors have their transformers names."""

_FLAT = StateDictOptions(flatten_optimizer_state_dict=True)


def state(engine: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Returns (tensors of model and optimizer by their names in the checkpoint, the optimizer's
    scalars by name).

    Only trained parameters are included, each once: a tied head is stored under the embedding's
    name.
    """
    whole = engine.module.state_dict()  # state_dict() reshards what a validation left gathered
    tensors = {name: whole[name] for name, p in engine.module.named_parameters() if p.requires_grad}
    numbers = {}
    for name, value in get_optimizer_state_dict(
        engine.module, engine.optimizer, options=_FLAT
    ).items():
        if isinstance(value, torch.Tensor) and value.dim() > 0:
            tensors[OPTIMIZER + name] = value
        else:
            numbers[name] = value.item() if isinstance(value, torch.Tensor) else value
    return tensors, numbers


def load(
    folder: Path, engine: Any, seed: int, group: dist.ProcessGroup | None = None
) -> dict[str, Any]:
    """Restores a checkpoint into the engine and this process's random number generators; returns
    its state.json. Collective.

    Tensors are resharded to the current number of ranks. If the checkpoint was saved by another
    number of ranks, the generators are re-seeded from (seed, step, rank).
    """
    tensors, _ = state(engine)
    dcp.load(tensors, storage_reader=dcp.HuggingFaceStorageReader(str(folder)), process_group=group)
    saved = read_json(folder / SCALARS)
    optimizer = {
        k.removeprefix(OPTIMIZER): v for k, v in tensors.items() if k.startswith(OPTIMIZER)
    }
    # torch's optimizers keep the step count as a float tensor, bitsandbytes' as an int.
    counts = {
        k: torch.tensor(v)
        for k, v in saved["optimizer"].items()
        if k.endswith(".step") and isinstance(v, float)
    }
    numbers = saved["optimizer"] | counts
    set_optimizer_state_dict(
        engine.module, engine.optimizer, {**optimizer, **numbers}, options=_FLAT
    )
    engine.lr_scheduler.load_state_dict(saved["scheduler"])
    if saved["ranks"] == dist.get_world_size():
        rng.restore(read_json(folder / rank_file(dist.get_rank())))
    else:
        rng.seed(seed, saved["step"], dist.get_rank())
    return saved


def rank_file(rank: int) -> str:
    """Returns the name of the file with one rank's own state."""
    return f"rank-{rank:05}.json"


def split(tensors: dict[str, torch.Tensor], ranks: int) -> dict[str, int]:
    """Returns {tensor name: number, from 1, of its shard file}; a rank's file has about
    ``FILE_BYTES``.
    """
    files, number, size = {}, 1, 0
    for name, tensor in tensors.items():
        share = tensor.numel() * tensor.itemsize // ranks
        if size and size + share > FILE_BYTES:
            number, size = number + 1, 0
        files[name] = number
        size += share
    return files


class Writer(dcp.HuggingFaceStorageWriter):
    """Writes one checkpoint from all ranks.

    torch calls ``write_data`` on every rank and, when all have written, ``finish`` on rank 0, which
    completes the checkpoint. An error in either is raised on every rank.
    """

    def __init__(
        self,
        run: Run,
        step: int,
        files: dict[str, int],
        shared: dict[str, Any],
        own: dict[str, Any],
    ) -> None:
        """``files`` comes from ``split``, ``shared`` becomes state.json, ``own`` is this rank's
        generator state.
        """
        self.run, self.step, self.shared, self.own = run, step, shared, own
        self.folder = run.partial_checkpoint(step)
        self.begin = time.monotonic()
        super().__init__(str(self.folder), fqn_to_index_mapping=files, save_distributed=True)
        # The tensors are already in host memory. With copy-ahead torch would synchronise with
        # device 0's current stream, on which training runs, and every rank of a node would open a
        # CUDA context on that device.
        self.per_thread_copy_ahead = 0

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Writes and fsyncs this rank's files; the result lists each with its size and SHA-256."""
        shards = {
            str(result.storage_data.relative_path)
            for result in super().write_data(plan, planner).value()
        }
        own = rank_file(dist.get_rank())
        write_json(self.folder / own, self.own)
        future: Future[list[WriteResult]] = Future()
        future.set_result([self._hashed(name) for name in (*sorted(shards), own)])
        return future

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Writes state.json and the manifest, renames the folder into place and points ``latest``
        at it.
        """
        write_json(self.folder / SCALARS, self.shared)
        written = [self._hashed(SCALARS), *(file for rank in results for file in rank)]
        hashes = {
            file.index.fqn: file.storage_data
            for file in sorted(written, key=lambda file: file.index.fqn)
        }
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
