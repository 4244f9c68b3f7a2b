"""Counts what a step asks of a GPU: FLOPs and memory traffic of every operator, and every read by
the host.

A kernel reads its inputs and writes its outputs once. Views are free, and a place that is written
in part (gather, scatter, an embedding) counts in part. Attention's FLOPs depend on the documents,
which fake tensors do not know: they are counted by the (query, key) pairs of the micro-batch at
hand, backward as twice forward, which is how ``trainer.batching.flops`` counts.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

ROOT = Path(__file__).resolve().parents[2]
READ = torch.ops.aten._local_scalar_dense.default
"""Brings a value to the host: item(), float(), bool(), tolist(), an index."""
COPIES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}
WRITTEN_ONLY = ("new_full", "new_zeros", "zeros_like", "ones_like", "full_like")
"""Operators that look at the shape of a tensor alone."""
OVERWRITE = ("copy_", "fill_", "zero_", "split_with_sizes_copy", "all_gather_copy_in", "chunk_cat")
"""Operators that do not read what they write to."""
PARTIAL = ("gather", "scatter", "embedding", "index")
"""Operators that touch chosen places of a tensor."""
WITHOUT_KERNEL = ("empty", "resize_", "set_", "record_stream", "wait_tensor", "prim.device")


@dataclass
class Total:
    """Calls of one operator in one phase, their FLOPs and bytes."""

    calls: int = 0
    flops: float = 0.0
    moved: int = 0


class Operators(TorchDispatchMode):
    """Counts the operators on CUDA tensors between entry and exit, by kind and name."""

    def __init__(self) -> None:
        super().__init__()
        self.totals: dict[tuple[str, str], Total] = defaultdict(Total)
        self.reads: Counter[str] = Counter()
        self.uploads: Counter[str] = Counter()
        """Copies to the device from memory that is not pinned."""
        self.pinned: list[torch.UntypedStorage] = []
        """Storages in pinned memory."""
        self.pairs = 0.0
        self.phase = ""

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if DTensor in types:
            return NotImplemented  # comes again with the shards
        if operator is READ:
            if _on_cuda(args):
                self.reads[_reader(args[0])] += 1
            return _one(args[0].dtype)
        result = operator(*args, **kwargs)
        if kwargs.get("pin_memory"):
            self.pinned.append(result.untyped_storage())
        to_host = operator in COPIES and _on_cuda(args) and not _on_cuda(result)
        if to_host and not self._lets_go(args, kwargs):
            self.reads[_reader(args[0])] += 1
        if operator in COPIES and _on_cuda(result) and _pageable(args):
            self.uploads[_reader(args[0])] += 1
        if _on_cuda((args, kwargs, result)) and not _without_kernel(operator, args, kwargs, result):
            self._count(operator, args, kwargs, result)
        return result

    def _lets_go(self, args: Any, kwargs: Any) -> bool:
        """Whether a copy to the host lets it go on: it was asked to, and the memory is pinned."""
        asked = kwargs.get("non_blocking") or args[2:] == (True,)
        target = args[0].untyped_storage()._cdata
        return bool(asked) and any(storage._cdata == target for storage in self.pinned)

    def _count(self, operator: Any, args: Any, kwargs: Any, result: Any) -> None:
        name, flops = str(operator), 0.0
        if operator.overloadpacket in flop_registry:
            flops = flop_registry[operator.overloadpacket](*args, **kwargs, out_val=result)
        attention = "varlen_attn" in name
        if attention:
            query = args[1] if "backward" in name else args[0]
            flops = (
                (2 if "backward" in name else 1) * 4 * query.shape[1] * query.shape[2] * self.pairs
            )
        total = self.totals[self._kind(name, attention, flops), name]
        total.calls += 1
        total.flops += flops
        total.moved += traffic(operator, args, kwargs, result)

    def _kind(self, name: str, attention: bool, flops: float) -> str:
        if "c10d" in name:
            return "collectives"
        if name.startswith("fsdp"):
            return "FSDP's copies"
        if self.phase == "loss":
            return "head" if flops else "loss"
        if self.phase:
            return self.phase
        if attention:
            return "attention"
        return "matmul" if flops else "elementwise"

    def during(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, whose operators belong to ``phase``."""

        def called(*args: Any, **kwargs: Any) -> Any:
            with self._in(phase):
                return function(*args, **kwargs)

        return called

    @contextmanager
    def _in(self, phase: str) -> Iterator[None]:
        self.phase = phase
        yield
        self.phase = ""


def traffic(operator: Any, args: Any, kwargs: Any, result: Any) -> int:
    """Bytes that one call of ``operator`` reads and writes."""
    name, arguments = operator.overloadpacket.__name__, operator._schema.arguments
    if any(word in name for word in PARTIAL):
        return _partial(args, result)
    inside = {t.untyped_storage()._cdata for t in _tensors((args, kwargs))}
    fresh = [t for t in _tensors(result) if t.untyped_storage()._cdata not in inside]
    if name in WRITTEN_ONLY:
        return sum(map(_size, fresh))
    overwrites = any(word in name for word in OVERWRITE)
    read = written = 0
    seen: set[int] = set()
    positional = zip(arguments, args, strict=False)
    for argument, value in [
        *positional,
        *((a, kwargs[a.name]) for a in arguments if a.name in kwargs),
    ]:
        once = {
            id(t): t for t in _tensors(value) if id(t) not in seen
        }  # addcmul takes the gradient twice
        seen |= once.keys()
        size = sum(map(_size, once.values()))
        changed = argument.alias_info is not None and argument.alias_info.is_write
        if name.startswith("_fused") and argument.name == "grads":
            changed = False  # without a gradient scaler
        if changed:
            written += size
        if not (changed and overwrites):
            read += size
    return read + written + sum(map(_size, fresh))


def _partial(args: Any, result: Any) -> int:
    """Bytes of a gather or a scatter: the places, and what is read there and written elsewhere."""
    places = [t for t in _tensors(args) if t.dtype == torch.int64]
    values = [t for t in _tensors((args, result)) if t.dtype != torch.int64]
    return sum(map(_size, places)) + 2 * min(map(_size, values))


def _size(tensor: torch.Tensor) -> int:
    """Bytes of the memory that a tensor covers: an expanded dimension is there once."""
    covered = tensor.element_size()
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        covered *= size if stride else 1
    return covered


def _tensors(value: Any) -> list[torch.Tensor]:
    return [t for t in tree_leaves(value) if isinstance(t, torch.Tensor)]


def _on_cuda(value: Any) -> bool:
    return any(t.device.type == "cuda" for t in _tensors(value))


def _pageable(value: Any) -> bool:
    on_host = [t for t in _tensors(value) if t.device.type == "cpu" and t.numel()]
    with unset_fake_temporarily():
        return not all(t.is_pinned() for t in on_host)


def _without_kernel(operator: Any, args: Any, kwargs: Any, result: Any) -> bool:
    if any(word in str(operator) for word in WITHOUT_KERNEL):
        return True
    if operator._schema.is_mutable:
        return False
    storages = {t.untyped_storage()._cdata for t in _tensors((args, kwargs))}
    return all(t.untyped_storage()._cdata in storages for t in _tensors(result)) and bool(
        _tensors(result)
    )


def _one(dtype: torch.dtype) -> Any:
    """The value of every fake tensor."""
    if dtype == torch.bool:
        return True
    return 1.0 if dtype.is_floating_point else 1


def _reader(tensor: torch.Tensor) -> str:
    """Who reads: the innermost function of the project or of verl, and the type of the value."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(ROOT / "trainer") or "verl" in path.parts:
            return f"{frame.f_code.co_qualname}: {tensor.dtype}"
        frame = frame.f_back
    return f"backward: {tensor.dtype}"
