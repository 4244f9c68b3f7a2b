"""Reads a base model's safetensors into the shards of the ranks, without a whole copy of the model on any of them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import Metadata

from common.errors import UserError


class Reader(dcp.HuggingFaceStorageReader):
    """Reads tensors, or slices of them, from the safetensors of a folder; reads the files' headers once."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self._metadata: Metadata | None = None

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Returns the name, shape and place of every tensor of the folder."""
        if self._metadata is None:
            self._metadata = super().read_metadata()
        return self._metadata

    @property
    def sizes(self) -> dict[str, torch.Size]:
        """Tensor name -> shape."""
        return {name: tensor.size for name, tensor in self.read_metadata().state_dict_metadata.items()}

    def read_into(self, tensors: dict[str, torch.Tensor]) -> None:
        """Fills ``tensors``, whole ones or this rank's shards, and converts to their types. Not collective."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            dcp.load(tensors, storage_reader=self, no_dist=True)


def load(module: torch.nn.Module, folder: Path, device: str | int) -> None:
    """Gives a sharded transformers model on the meta device its memory on ``device``, and the weights of ``folder``.

    Host memory holds the file's pages and one tensor's shard at a time. Raises UserError where the folder lacks a
    tensor of the model, or has it in another shape.
    """
    module.to_empty(device=device)
    if module.config.tie_word_embeddings:
        # ``to_empty`` gave each of the two modules a tensor of its own.
        module.lm_head.weight = module.model.embed_tokens.weight
    for part in module.modules():
        if next(part.buffers(recurse=False), None) is not None:
            module._init_weights(part)  # computes the frequencies of the rotary embedding, which no file holds
    tensors = dict(module.named_parameters())
    reader = Reader(folder)
    _check(tensors, reader.sizes, folder)
    reader.read_into(tensors)


def _check(tensors: dict[str, torch.Tensor], sizes: dict[str, torch.Size], folder: Path) -> None:
    for name, tensor in tensors.items():
        if name not in sizes:
            raise UserError(f"{folder} has no tensor {name} of its config.json's model: fetch the model again")
        if sizes[name] != tensor.shape:
            raise UserError(
                f"{folder}: {name} has the shape {list(sizes[name])}, and config.json says {list(tensor.shape)}: "
                "fetch the model again"
            )
