"""Reads the model's tensors of a checkpoint one at a time and writes them as Hugging Face
weights.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from common.files import read_json, write_json
from trainer.checkpoint.checkpoint import OPTIMIZER
from trainer.engine.load_weights import Reader

SHARD_SIZE = "1GB"
"""Size of a weights file; an export needs this much memory besides the largest tensor."""


class Weights(Protocol):
    """A model's tensors by their transformers names."""

    sizes: dict[str, torch.Size]

    def read(self, name: str, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        """Returns the tensor, converted to ``dtype``."""


class Trained:
    """The model's tensors in a checkpoint, without the optimizer's."""

    def __init__(self, checkpoint: Path) -> None:
        self._reader = Reader(checkpoint)
        self.sizes = {
            name: size
            for name, size in self._reader.sizes.items()
            if not name.startswith(OPTIMIZER)
        }

    def read(self, name: str, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        """Returns the full tensor, converted to ``dtype``."""
        tensor = torch.empty(self.sizes[name], dtype=dtype)
        self._reader.read_into({name: tensor})
        return tensor


class Saved:
    """The tensors of a Hugging Face folder's safetensors files. A tied head, which some programs
    also save, is left out.
    """

    def __init__(self, folder: Path) -> None:
        tied = read_json(folder / "config.json").get("tie_word_embeddings")
        self._files: dict[str, Path] = {}
        self.sizes: dict[str, torch.Size] = {}
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                for name in sorted(set(file.keys()) - ({"lm_head.weight"} if tied else set())):
                    self._files[name] = path
                    self.sizes[name] = torch.Size(file.get_slice(name).get_shape())

    def read(self, name: str, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        """Returns the tensor, converted to ``dtype``."""
        with safe_open(self._files[name], framework="pt") as file:
            return file.get_tensor(name).to(dtype)


def write(weights: Weights, folder: Path) -> int:
    """Writes ``weights`` as bf16 safetensors; returns the number of parameters, a tied head counted
    once.

    Memory holds one file and one tensor at a time.
    """
    shapes = {
        name: torch.empty(size, dtype=torch.bfloat16, device="meta")
        for name, size in weights.sizes.items()
    }
    split = split_torch_state_dict_into_shards(shapes, max_shard_size=SHARD_SIZE)
    for filename, names in split.filename_to_tensors.items():
        tensors = {name: weights.read(name) for name in names}
        with _as_os_error(folder / filename):
            save_file(tensors, folder / filename, metadata={"format": "pt"})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        write_json(folder / "model.safetensors.index.json", index)
    return sum(math.prod(size) for size in weights.sizes.values())


@contextlib.contextmanager
def _as_os_error(path: Path) -> Iterator[None]:
    """Converts an error of the file system, which safetensors reports as text, to an OSError, so
    that a full disk gives the usual message.
    """
    try:
        yield
    except SafetensorError as e:
        found = re.search(r"os error (\d+)", str(e))
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from e
