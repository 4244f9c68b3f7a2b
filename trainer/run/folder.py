"""The run directory: the only module that knows the paths of a run's files."""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from common.errors import UserError
from common.files import MANIFEST, file_errors, heal_jsonl
from trainer.recipe import load as configs

SCALARS = "state.json"
"""File in a checkpoint's folder: step, scheduler, optimizer scalars, identity and metrics."""
FILE_BYTES = 256 * 2**20
"""Size of one rank's shard file; writing needs twice that in additional memory, and its copies
block Python.
"""
REQUEUES, SUBMISSIONS = "requeues.jsonl", "submissions.jsonl"
"""Files that the job scripts append to: why a job was requeued or not, and which evaluations were
submitted.
"""
OUTCOME = "outcome.json"
"""File in an attempt's folder: how the attempt ended."""
PROVENANCE = "provenance.json"
"""File in an attempt's folder: git commit, package versions, model, dataset and the step it started
after.
"""


@dataclass(frozen=True)
class Run:
    """A run's folder, with a member for every path below it."""

    root: Path

    @staticmethod
    def of(config: DictConfig) -> Run:
        """Returns the run that ``config`` describes."""
        return Run(Path(config.run.root) / config.run.name)

    @staticmethod
    def find(name: str) -> Run | None:
        """Returns the run in the folder ``name`` or runs/``name``; None if there is none."""
        for root in (Path(name), Path("runs") / name):
            if (root / "config.yaml").exists():
                return Run(root)
        return None

    @property
    def name(self) -> str:
        """The run's name, which is its folder's."""
        return self.root.name

    @property
    def config(self) -> Path:
        """The configuration, frozen when the run was started."""
        return self.root / "config.yaml"

    @property
    def lock(self) -> Path:
        """Lock of the process that writes the run."""
        return self.root / "run.lock"

    @property
    def latest(self) -> Path:
        """File with the name of the newest complete checkpoint."""
        return self.root / "latest"

    @property
    def metrics(self) -> Path:
        """Step metrics of the run, rebuilt from its attempts' metrics; for each step the last
        attempt counts.
        """
        return self.root / "metrics.jsonl"

    @property
    def attempts(self) -> list[Path]:
        """Attempt folders, oldest first."""
        return sorted(
            (p for p in (self.root / "attempts").glob("*") if p.name.isdigit()),
            key=lambda p: int(p.name),
        )

    def new_attempt(self) -> Path:
        """Creates and returns the next attempt's folder."""
        path = self.root / "attempts" / str(len(self.attempts) + 1)
        path.mkdir(parents=True)
        return path

    def checkpoint(self, step: int) -> Path:
        """Returns the folder of a complete checkpoint."""
        return self.root / "checkpoints" / f"step_{step}"

    def partial_checkpoint(self, step: int) -> Path:
        """Returns the folder of a checkpoint that is being written, or whose writing was
        interrupted.
        """
        return self.root / "checkpoints" / f".step_{step}.partial"

    def deleted_checkpoint(self, step: int) -> Path:
        """Returns the folder of a checkpoint that is being deleted."""
        return self.root / "checkpoints" / f".step_{step}.deleted"

    @property
    def partial_checkpoints(self) -> list[Path]:
        """Folders of unfinished checkpoints."""
        return sorted((self.root / "checkpoints").glob(".step_*.partial"))

    @property
    def deleted_checkpoints(self) -> list[Path]:
        """Folders of checkpoints whose deletion has not finished."""
        return sorted((self.root / "checkpoints").glob(".step_*.deleted"))

    def export(self, step: int) -> Path:
        """Returns the folder of a checkpoint's Hugging Face export."""
        return self.root / "export" / f"step_{step}"

    def export_lease(self, step: int) -> Path:
        """Returns the lock to hold while exporting or deleting a checkpoint."""
        return self.root / "export" / f".step_{step}.lock"

    @property
    def checkpoints(self) -> list[int]:
        """Steps with a complete checkpoint, ascending."""
        return _complete_steps(self.root / "checkpoints")

    @property
    def exports(self) -> list[int]:
        """Steps with a complete export, ascending."""
        return _complete_steps(self.root / "export")

    def evaluation(self, suite: str, label: str, config_hash: str) -> Path:
        """Returns the folder of one evaluation; ``label`` is ``base`` or ``step_N``."""
        return self.root / "evals" / f"{suite}@{label}-{config_hash[:8]}"

    @property
    def evaluations(self) -> list[Path]:
        """Folders of evaluations, complete or not."""
        return sorted(p for p in (self.root / "evals").glob("*@*-*") if p.is_dir())

    def notes(self, name: str) -> list[dict[str, Any]]:
        """Returns the complete lines of a JSONL file that may be growing; empty if there is no
        file.
        """
        path = self.root / name
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def note(self, name: str, line: dict[str, Any]) -> None:
        """Appends a line to a JSONL file, with the time as its first field, and fsyncs it."""
        self.root.mkdir(parents=True, exist_ok=True)
        path = self.root / name
        heal_jsonl(path)
        with path.open("a", encoding="utf-8") as f:
            f.write(json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **line}) + "\n")
            f.flush()
            os.fsync(f.fileno())

    @property
    def awaited(self) -> set[int]:
        """Steps whose evaluation is submitted but whose export does not exist yet."""
        labels = {note["label"] for note in self.notes(SUBMISSIONS)} - {"base"}
        return set(map(int, labels)) - set(self.exports)

    @property
    def rl(self) -> Path:
        """Folder with the problems for RL, and a subfolder per RL start."""
        return self.root / "rl"

    @property
    def report(self) -> Path:
        """The run's report."""
        return self.root / "report.md"


def is_complete(folder: Path) -> bool:
    """Returns True when the folder's manifest, which is written last, exists."""
    return (folder / MANIFEST).exists()


def check(config: DictConfig) -> Run:
    """Returns the run of ``config``, which need not exist yet.

    Raises UserError when it was started with other values of keys that may not change.
    """
    run = Run.of(config)
    if not run.config.exists():
        return run
    changes = configs.immutable_changes(configs.read(run.config), config)
    if changes:
        raise UserError(
            f"{run.root} was started with other values:\n  "
            + "\n  ".join(changes)
            + "\nuse those values, or name a new run with run.name=NAME"
        )
    return run


def start(config: DictConfig) -> Run:
    """Opens the run of ``config``, freezing the configuration on first use. Raises UserError as
    ``check`` does.
    """
    run = check(config)
    if not run.config.exists():
        with file_errors(run.root):
            configs.write(config, run.config)
    return run


def _complete_steps(folder: Path) -> list[int]:
    names = (re.fullmatch(r"step_(\d+)", p.name) for p in folder.glob("step_*") if is_complete(p))
    return sorted(int(m[1]) for m in names if m)
