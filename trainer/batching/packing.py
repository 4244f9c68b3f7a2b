"""Packs a micro-batch into one row of tokens without padding, and slices it for a sequence-parallel
rank.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch


@dataclass(frozen=True)
class Packed:
    """The input of one rank: ``tokens`` consecutive tokens of a micro-batch's ``sum(lengths)``."""

    input_ids: torch.Tensor
    """(1, tokens) int64."""
    position_ids: torch.Tensor
    """(1, tokens) int64, starting at 0 in each document."""
    supervised: torch.Tensor
    """(n,) int64: positions in this slice whose next token is supervised."""
    labels: torch.Tensor
    """(n,) int64: those next tokens."""
    cu_seqlens: torch.Tensor
    """(documents + 1,) int32: where documents start in the full micro-batch, and its end."""
    lengths: tuple[int, ...]
    """Number of tokens of each document of the full micro-batch, on the host."""
    start: int
    """Position of this slice's first token in the full micro-batch."""

    def attention(self) -> dict[str, Any]:
        """Returns the keyword arguments for every attention layer; none of them reads from the
        device.
        """
        return {
            "cu_seq_lens_q": self.cu_seqlens,
            "cu_seq_lens_k": self.cu_seqlens,
            "max_length_q": max(self.lengths),
            "max_length_k": max(self.lengths),
        }

    def pinned(self) -> Packed:
        """Returns a copy in pinned memory, from which a GPU reads without the host."""
        return self._each(torch.Tensor.pin_memory)

    def to(self, device: str | int | torch.device) -> Packed:
        """Returns it on ``device``; from pinned memory the host does not wait."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Packed:
        tensors = {name: x for name, x in vars(self).items() if isinstance(x, torch.Tensor)}
        return replace(self, **{name: change(x) for name, x in tensors.items()})


def pack(rows: Sequence[Mapping[str, torch.Tensor]], parts: int = 1, part: int = 0) -> Packed:
    """Joins rows of ``input_ids`` and ``loss_mask``, each (length,), on the host and returns slice
    ``part`` of ``parts``.

    The joined tokens are padded to a multiple of ``parts`` with an unsupervised document; without
    rows, the result is that document alone.
    """
    lengths = [len(row["input_ids"]) for row in rows]
    # Two tokens a slice: torch compiles a size of 1 by itself.
    if fill := -sum(lengths) % parts or (0 if rows else 2 * parts):
        lengths.append(fill)
    ids = torch.zeros(sum(lengths), dtype=torch.int64)
    follows = torch.zeros(sum(lengths), dtype=torch.bool)
    start = 0
    for row, length in zip(rows, lengths, strict=False):
        ids[start : start + length] = row["input_ids"]
        follows[start : start + length - 1] = row["loss_mask"][1:].bool()
        start += length
    positions = torch.cat([torch.arange(length) for length in lengths])
    size = len(ids) // parts
    mine = slice(part * size, (part + 1) * size)
    supervised = follows[mine].nonzero().squeeze(1)
    return Packed(
        input_ids=ids[mine][None],
        position_ids=positions[mine][None],
        supervised=supervised,
        labels=ids[supervised + part * size + 1],
        cu_seqlens=torch.tensor([0, *lengths]).cumsum(0).to(torch.int32),
        lengths=tuple(lengths),
        start=part * size,
    )


def by_document(packed: Packed, losses: torch.Tensor) -> torch.Tensor:
    """Returns (2, documents), the sums and numbers of the losses (n,) of this slice's supervised
    tokens by document of the full micro-batch. The host does not wait.
    """
    ends = packed.cu_seqlens[1:].long()
    places = torch.bucketize(packed.supervised + packed.start, ends, right=True)
    found = losses.new_zeros(2, len(packed.lengths))
    found[0].index_add_(0, places, losses)
    found[1].index_add_(0, places, torch.ones_like(losses))
    return found
