"""Results of work on the device that may not have finished. They are copied to the host
asynchronously; reading them waits only for that work, not for work launched later.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from trainer.engine import stopwatch
from trainer.engine.stopwatch import Laps, Timestamp
from trainer.run.step_metrics import TokenMeans


class HostCopy:
    """A small tensor on its way to the host."""

    def __init__(self, values: torch.Tensor) -> None:
        """Starts the copy; ``values`` must not change afterwards."""
        self._values, self._there = values, None
        if values.device.type == "cuda":
            # A copy into pageable memory would make the host wait.
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._there = Timestamp()

    def read(self) -> torch.Tensor:
        """Returns the tensor on the host; waits for the copy."""
        if self._there is not None:
            self._there.wait()
        return self._values


@dataclass(frozen=True)
class StepFigures:
    """The figures of a finished step on this rank."""

    means: TokenMeans
    """This rank's shares: summed over ranks, the means over the batch's supervised tokens."""
    grad_norm: float
    """Gradient norm before clipping."""
    head_seconds: float
    """Seconds in this rank's output head, where it waits for no other rank."""


@dataclass(frozen=True)
class PendingStep:
    """An optimizer step of this rank that was launched and may still be running."""

    sums: HostCopy
    """(3,): sums of token losses, entropies and correct tokens of this rank."""
    norm: HostCopy | float
    """Gradient norm before clipping, a scalar."""
    tokens: int
    """Supervised tokens of the global batch."""
    head_tokens: int
    """Supervised tokens of this rank."""
    row_losses: list[torch.Tensor]
    """Sums and numbers of the rows' losses (``packing.by_document``) of each micro-batch, on the
    device.
    """
    laps: Laps
    """Laps of the output head."""
    end: Timestamp

    def read(self) -> StepFigures:
        """Waits for the step's end and returns its figures."""
        self.end.wait()
        norm = self.norm
        return StepFigures(
            TokenMeans(*(self.sums.read().double() / self.tokens).tolist()),
            norm if isinstance(norm, float) else norm.read().item(),
            stopwatch.seconds(self.laps),
        )
