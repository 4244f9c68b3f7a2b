"""Decides when to stop so that the last save fits before Slurm ends the job."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Mapping
from datetime import datetime

GRACE_SECONDS = 30
"""Seconds for what follows the save: closing logs, leaving the process group."""
ASSUMED_BYTES_PER_SECOND = 1e8
"""Assumed write bandwidth per rank, for estimating how long a save takes."""


def job_end(environment: Mapping[str, str]) -> float | None:
    """Returns when Slurm will end this process's job, in seconds since the epoch.

    None outside a job, for a job without a time limit, and when scontrol fails.
    """
    if "SLURM_JOB_ID" not in environment:
        return None
    if "SLURM_JOB_END_TIME" in environment:
        return float(environment["SLURM_JOB_END_TIME"])
    command = ["scontrol", "show", "job", "-o", environment["SLURM_JOB_ID"]]
    try:
        shown = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=60
        ).stdout
    except (OSError, subprocess.SubprocessError) as e:
        print(
            "warmstart: the job's time limit is unknown: the run cannot stop in time by itself "
            f"({e})",
            flush=True,
        )
        return None
    found = re.search(r"\bEndTime=(\d\S+)", shown)
    return datetime.fromisoformat(found[1]).timestamp() if found else None


def save_seconds(size: float, ranks: int, measured: float = 0.0) -> float:
    """Returns how long a save may take, in seconds: the longest ``measured`` one, and at least the
    estimate from the checkpoint's ``size`` in bytes.
    """
    return max(measured, size / ranks / ASSUMED_BYTES_PER_SECOND)


class Deadline:
    """Tells when to stop: ``margin`` seconds before ``end`` (None: never)."""

    def __init__(self, end: float | None) -> None:
        self.end = end
        self.slowest = 0.0
        self._steps = 0

    def stepped(self, seconds: float) -> None:
        """Records a step's duration; the first step, which may compile, is ignored once there is a
        second.
        """
        self._steps += 1
        self.slowest = max(self.slowest, seconds) if self._steps > 2 else seconds

    def margin(self, save_seconds: float) -> float:
        """Returns the seconds that must be left: 30 + 2 x the slowest step so far + 2 x
        ``save_seconds``.
        """
        return GRACE_SECONDS + 2 * self.slowest + 2 * save_seconds

    def near(self, save_seconds: float, running: int = 0) -> bool:
        """Returns True once less than the margin is left after the ``running`` steps that have been
        launched and not ended.
        """
        left = self.margin(save_seconds) + running * self.slowest
        return self.end is not None and time.time() > self.end - left
