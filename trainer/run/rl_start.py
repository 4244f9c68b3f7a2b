"""The folder of an RL start: the only module that knows the paths of its files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from common.errors import UserError
from common.files import MANIFEST

REWARD_PICTURE = "reward.png"
"""RL's reward by step: a file in the start's folder, and beside the model card of an export."""
_STEP = re.compile(r"global_step_([0-9]+)")
_NUMBER = re.compile(r"[1-9][0-9]*")
_START = re.compile(r"step_[0-9]+-([0-9a-f]{8})")


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
    def values(self) -> Path:
        """verl's whole configuration of the attempt, as Hydra writes it."""
        return self.root / ".hydra" / "config.yaml"

    @property
    def stop(self) -> Path:
        """File whose existence tells verl's trainer to save after the current step and end."""
        return self.root / "stop"


@dataclass(frozen=True)
class RlStart:
    """The files that ``warmstart rl`` writes for verl and those that verl writes, with a member for
    every path.
    """

    root: Path

    @staticmethod
    def find(folder: Path, step: int | None = None) -> list[RlStart]:
        """Returns the complete starts below ``folder``, of one SFT step or of all, oldest first."""
        pattern = f"step_{'*' if step is None else step}-*"
        starts = (RlStart(path) for path in folder.glob(pattern))
        made = [(s.manifest.stat().st_mtime, s.root, s) for s in starts if s.manifest.exists()]
        return [start for *_, start in sorted(made)]

    @property
    def hash(self) -> str | None:
        """The hash at the end of the folder's name; None if someone has renamed the folder."""
        found = _START.fullmatch(self.root.name)
        return found[1] if found else None

    @property
    def used(self) -> DictConfig:
        """The configuration of the newest attempt; before the first, the start's own."""
        for attempt in reversed(self.attempts):
            if attempt.values.exists():
                used = OmegaConf.load(attempt.values)
                assert isinstance(used, DictConfig)
                return used
        return self.values([])

    def values(self, words: Sequence[str]) -> DictConfig:
        """Returns the configuration, without verl's defaults, with the key=value of ``words`` over
        it.

        Raises UserError when the GPUs cannot share the batch evenly.
        """
        given = [word.lstrip("+") for word in words if "=" in word and word[0] not in "-~"]
        values = OmegaConf.merge(OmegaConf.load(self.config), OmegaConf.from_dotlist(given))
        assert isinstance(values, DictConfig)
        batch, gpus = values.data.train_batch_size, gpus_of(values)
        if batch % gpus:
            raise UserError(
                f"data.train_batch_size={batch} is not a multiple of {gpus} GPUs: change it "
                "and actor_rollout_ref.actor.ppo_mini_batch_size"
            )
        return values

    @property
    def manifest(self) -> Path:
        """Records what the start was made from; written last."""
        return self.root / MANIFEST

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

    @property
    def picture(self) -> Path:
        """The report's picture of reward, entropy and length."""
        return self.root / REWARD_PICTURE

    def weights(self, step: int) -> Path:
        """Returns the Hugging Face folder of a checkpoint."""
        return self.checkpoints / f"global_step_{step}" / "actor" / "huggingface"

    @property
    def latest(self) -> int:
        """Step of the newest complete checkpoint, which verl records once its files are written; 0
        before the first.
        """
        note = self.checkpoints / "latest_checkpointed_iteration.txt"
        return int(note.read_text()) if note.exists() else 0

    @property
    def steps(self) -> list[int]:
        """Steps whose checkpoint is complete and still exists, ascending."""
        names = (_STEP.fullmatch(p.name) for p in self.checkpoints.glob("global_step_*"))
        found = sorted(int(m[1]) for m in names if m)
        return [s for s in found if s <= self.latest and self.weights(s).exists()]

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


def gpus_of(values: DictConfig) -> int:
    """Returns the number of GPUs that a configuration asks for, or of ranks on CPUs."""
    return values.trainer.nnodes * values.trainer.n_gpus_per_node
