"""The folder of an RL start: the only module that knows the paths of its files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_STEP = re.compile(r"global_step_([0-9]+)")
_NUMBER = re.compile(r"[1-9][0-9]*")


@dataclass(frozen=True)
class RlAttempt:
    """The folder of one attempt to run verl's trainer."""

    root: Path

    @property
    def log(self) -> Path:
        """Output of verl and of Ray's workers."""
        return self.root / "log"

    @property
    def metrics(self) -> Path:
        """The attempt's metrics, as verl writes them: one {"step", "data"} per line."""
        return self.root / "metrics.jsonl"

    @property
    def stop(self) -> Path:
        """File whose existence asks verl's trainer to save after its step, and to end."""
        return self.root / "stop"


@dataclass(frozen=True)
class RlStart:
    """What ``warmstart rl`` writes for verl, and what verl writes there, with a member for every
    path.
    """

    root: Path

    @property
    def config(self) -> Path:
        """verl's GRPO configuration."""
        return self.root / "grpo.yaml"

    @property
    def script(self) -> Path:
        """The script that runs verl."""
        return self.root / "run_grpo.sh"

    @property
    def train(self) -> Path:
        """Prompts to train on."""
        return self.root / "train.parquet"

    @property
    def validation(self) -> Path:
        """Held-out prompts."""
        return self.root / "validation.parquet"

    @property
    def metrics(self) -> Path:
        """Metrics of all attempts by step, without steps that were repeated: one {"step", "data"}
        per line, ascending.
        """
        return self.root / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Folder of verl's checkpoints."""
        return self.root / "checkpoints"

    def weights(self, step: int) -> Path:
        """Returns the Hugging Face folder of a checkpoint."""
        return self.checkpoints / f"global_step_{step}" / "actor" / "huggingface"

    @property
    def latest(self) -> int:
        """Step of the newest complete checkpoint, which verl notes when its files are there; 0
        before the first.
        """
        note = self.checkpoints / "latest_checkpointed_iteration.txt"
        return int(note.read_text()) if note.exists() else 0

    @property
    def steps(self) -> list[int]:
        """Steps whose checkpoint is complete and still there, ascending."""
        names = (_STEP.fullmatch(p.name) for p in self.checkpoints.glob("global_step_*"))
        found = sorted(int(m[1]) for m in names if m)
        return [s for s in found if s <= self.latest and (self.weights(s) / "config.json").exists()]

    @property
    def attempts(self) -> list[RlAttempt]:
        """The attempts, oldest first."""
        folders = [p for p in (self.root / "attempts").glob("*") if _NUMBER.fullmatch(p.name)]
        return [RlAttempt(p) for p in sorted(folders, key=lambda p: int(p.name))]

    def new_attempt(self) -> RlAttempt:
        """Creates the next attempt's folder; returns the attempt."""
        numbers = [int(attempt.root.name) for attempt in self.attempts]
        attempt = RlAttempt(self.root / "attempts" / str(max(numbers, default=0) + 1))
        attempt.root.mkdir(parents=True)
        return attempt
