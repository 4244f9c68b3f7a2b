"""Reads a base model's safetensors into each rank's shards; no rank holds a full copy of the
model.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import Metadata

from common.errors import UserError


class Reader(dcp.HuggingFaceStorageReader):
    """Reads full tensors or shards from the safetensors of a folder; reads the files' headers
    once.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self._metadata: Metadata | None = None

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Returns the name, shape and file of every tensor of the folder."""
        if self._metadata is None:
            self._metadata = super().read_metadata()
        return self._metadata

    @property
    def sizes(self) -> dict[str, torch.Size]:
        """Shape of each tensor, by name."""
        return {
            name: tensor.size for name, tensor in self.read_metadata().state_dict_metadata.items()
        }

    def read_into(self, tensors: dict[str, torch.Tensor]) -> None:
        """Fills ``tensors`` (full ones or this rank's shards) in place, converting to their dtypes.
        Not collective.
        """
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            dcp.load(tensors, storage_reader=self, no_dist=True)


def load(module: torch.nn.Module, folder: Path, device: str | int) -> None:
    """Moves a sharded transformers model from the meta device to ``device`` and loads the weights
    of ``folder``.

    Host memory holds the file's pages and one tensor's shard at a time. Raises UserError when the
    folder lacks a tensor of the model, or has it in another shape.
    """
    _allocate(module, device)
    tensors = dict(module.named_parameters())
    reader = Reader(folder)
    _check(tensors, reader.sizes, folder)
    reader.read_into(tensors)


@torch.no_grad()
def randomise(module: torch.nn.Module, device: str | int) -> None:
    """Allocates the model as ``load`` does and draws its matrices from a normal distribution with
    its ``initializer_range``; the norms' scales are 1.
    """
    _allocate(module, device)
    for parameter in module.parameters():
        shard = parameter.to_local()
        if parameter.ndim == 1:
            shard.fill_(1.0)
        else:
            shard.normal_(std=module.config.initializer_range)


def _allocate(module: torch.nn.Module, device: str | int) -> None:
    module.to_empty(device=device)
    if module.config.tie_word_embeddings:
        # ``to_empty`` has untied the two: it allocated a tensor for each module.
        module.lm_head.weight = module.model.embed_tokens.weight
    for part in module.modules():
        if next(part.buffers(recurse=False), None) is not None:
            module._init_weights(part)  # computes the rotary frequencies, which are in no file


def _check(tensors: dict[str, torch.Tensor], sizes: dict[str, torch.Size], folder: Path) -> None:
    for name, tensor in tensors.items():
        if name not in sizes:
            raise UserError(
                f"{folder} lacks the tensor {name} of its config.json: download the model again"
            )
        if sizes[name] != tensor.shape:
            raise UserError(
                f"{folder}: {name} has shape {list(sizes[name])}, config.json says "
                f"{list(tensor.shape)}: download the model again"
            )
