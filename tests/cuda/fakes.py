"""Lets the engine run on fake tensors: what needs values is computed for real, everything on the
device is fake.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.distributed.checkpoint import planner_helpers

from trainer.engine import load_weights


class Fakes(FakeTensorMode):
    """Makes every tensor fake, but for those on the host that were there before."""

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)

    @property
    def avoid_device_init(self) -> bool:
        """Values that come from the host become fake too: on this device nothing can be copied."""
        return True


loaded = 0
"""Bytes of all slices that have been read."""


class RealFile:
    """A safetensors file whose slices are real tensors."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def get_slice(self, name: str) -> RealSlices:
        """Returns the tensor, to be sliced."""
        return RealSlices(self.file.get_slice(name))


class RealSlices:
    """A tensor in a file."""

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor

    def __getitem__(self, where: Any) -> torch.Tensor:
        global loaded
        with unset_fake_temporarily():
            slice_ = self.tensor[where]
        loaded += slice_.nbytes
        return slice_


def real(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns ``function`` with real tensors inside."""

    @wraps(function)
    def called(*arguments: Any, **named: Any) -> Any:
        with unset_fake_temporarily():
            return function(*arguments, **named)

    return called


def install(mode: Fakes) -> None:
    """Makes this process's engines load weights into fake tensors of ``mode``.

    Where a shard lies in a tensor is computed with a tensor of ranks, for real.
    """
    load, read = load_weights.load, load_weights.Reader._process_read_request

    def load_into_fakes(*arguments: Any) -> None:
        with mode:
            load(*arguments)

    def read_slices(self: Any, file: Any, request: Any, planner: Any) -> None:
        read(self, RealFile(file), request, planner)

    load_weights.load, load_weights.Reader._process_read_request = load_into_fakes, read_slices
    offsets = "compute_local_shape_and_global_offset"
    setattr(planner_helpers, offsets, real(getattr(planner_helpers, offsets)))
