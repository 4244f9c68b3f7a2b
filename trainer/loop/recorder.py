"""Records the steps of an attempt once they have ended: measures, judges and logs each, and ends
the run when too many steps in a row have no finite gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from verl.utils.device import get_torch_device

from common.errors import StageFailed
from trainer.batching.dataset import TokenDataset
from trainer.loop.gather_metrics import Meter
from trainer.loop.loggers import Tracker
from trainer.loop.sentinel import Sentinel
from trainer.loop.step import LaunchedStep
from trainer.process.deadline import Deadline
from trainer.run.step_metrics import StepMetrics, TokenMeans

SKIPS_IN_A_ROW = 3
"""Number of consecutive steps without a finite gradient that ends the run, because the weights
would not recover.
"""


@dataclass(frozen=True)
class Entry:
    """A launched step that is to be recorded."""

    step: int
    """Counts from 1."""
    epoch: int
    launched: LaunchedStep
    held_out: TokenMeans | None
    """The validation after the step, if there was one."""
    peak_gb: float
    """See ``Meter.peak_gb``."""


class Recorder:
    """Records steps in their order, on all ranks alike."""

    def __init__(
        self,
        meter: Meter,
        sentinel: Sentinel,
        deadline: Deadline,
        tracker: Tracker | None,
        rows: TokenDataset,
        settle: Callable[[], object],
    ) -> None:
        """Only rank 0 has a ``tracker``. ``settle`` waits for the save in flight."""
        self.meter, self.sentinel, self.deadline, self.tracker = meter, sentinel, deadline, tracker
        self.rows, self.settle = rows, settle
        self._skips = 0

    def record(self, entry: Entry) -> StepMetrics:
        """Waits for the step's end, logs it and returns its metrics. Collective.

        Raises StageFailed at the last of ``SKIPS_IN_A_ROW`` steps without a finite gradient.
        """
        result = entry.launched.result()
        metrics = self.meter.gather(entry.step, entry.epoch, result, entry.held_out, entry.peak_gb)
        metrics = self.sentinel.judge(metrics, entry.launched.row_losses)
        self.deadline.stepped(metrics.seconds)
        if self.tracker is not None:
            self.tracker.log(metrics)
        self._skips = self._skips + 1 if metrics.skipped else 0
        if self._skips == SKIPS_IN_A_ROW:
            self.settle()
            # The next step may be running: on all ranks, so that it can end.
            get_torch_device().synchronize()
            raise StageFailed(
                f"no finite gradient in {self._skips} steps in a row (loss {metrics.loss}); the "
                f"rows of step {entry.step}: " + ", ".join(self.rows.id(row) for row in result.rows)
            )
        return metrics
