"""The run directory: the only module that knows the paths of a run's files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from common.errors import UserError
from common.files import MANIFEST, read_json
from trainer.recipe import site
from trainer.run import ledger
from trainer.run.model_label import IN_FOLDERS, ModelLabel

SCALARS = "state.json"
"""File in a checkpoint's folder: step, scheduler, optimizer scalars, identity and metrics."""
FILE_BYTES = 256 * 2**20
"""Size of one rank's shard file; writing needs twice that in additional memory, and its copies
block Python.
"""
REQUEUES, SUBMISSIONS = "requeues.jsonl", "submissions.jsonl"
"""Files of the job scripts: why a job was requeued or not, and the submitted evaluations."""
INCIDENTS = "incidents.jsonl"
"""File with the faults of single nodes."""
FIELDS = {REQUEUES: ledger.DECISION, SUBMISSIONS: ledger.SUBMISSION, INCIDENTS: ledger.INCIDENT}
LOSS_PICTURE = "loss.png"
"""The training loss by step: a file in the run's folder, and beside an export's model card."""
_EVALUATION = re.compile(rf"(.+)@({IN_FOLDERS})-.+")
"""Name of an evaluation's folder: suite, model and a hash of the settings."""
_NUMBER = re.compile(r"[1-9][0-9]*")


@dataclass(frozen=True)
class Attempt:
    """The folder of one attempt to train a run, with a member for every path in it."""

    root: Path

    @property
    def number(self) -> int:
        """The attempt's number, counted from 1."""
        return int(self.root.name)

    @property
    def config(self) -> Path:
        """The configuration that the attempt executes."""
        return self.root / "config.yaml"

    @property
    def log(self) -> Path:
        """Log of the attempt and its ranks."""
        return self.root / "log"

    @property
    def metrics(self) -> Path:
        """Step metrics, one JSON line per step."""
        return self.root / "metrics.jsonl"

    @property
    def provenance(self) -> Path:
        """Git commit, package versions, model, dataset and the step the attempt started after;
        written when training starts.
        """
        return self.root / "provenance.json"

    @property
    def outcome(self) -> Path:
        """How the attempt ended."""
        return self.root / "outcome.json"

    @property
    def status(self) -> str | None:
        """``finished``, ``stopped`` or ``failed``; None without an outcome."""
        return read_json(self.outcome)["status"] if self.outcome.exists() else None

    def stacks(self, rank: int) -> Path:
        """Returns the file for a hung rank's stacks; one per rank, because all may write."""
        return self.root / f"stacks-rank{rank}.txt"

    def trace(self, rank: int) -> Path:
        """Returns the file for a rank's profiler trace."""
        return self.root / f"trace-rank{rank}.json.gz"


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
        """Returns the run in folder ``name``, or of that name in the site's runs or ``runs``."""
        for root in (Path(name), site.runs() / name, Path("runs") / name):
            # A folder named by "." or ".." has a name of its own.
            run = Run(root if root.name.strip(".") else root.resolve())
            if run.config.exists():
                return run
        return None

    @property
    def name(self) -> str:
        """The run's name, which is also its folder's name."""
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
        """Step metrics of the run, rebuilt from those of its attempts."""
        return self.root / "metrics.jsonl"

    @property
    def attempts(self) -> list[Attempt]:
        """The attempts, oldest first."""
        folders = [p for p in (self.root / "attempts").glob("*") if _NUMBER.fullmatch(p.name)]
        return sorted(map(Attempt, folders), key=lambda attempt: attempt.number)

    @property
    def last_attempt(self) -> int:
        """The number of the last attempt; 0 before the first. Older ones may have been deleted."""
        return max((attempt.number for attempt in self.attempts), default=0)

    def new_attempt(self) -> Attempt:
        """Creates the next attempt's folder; returns the attempt.

        Raises UserError when another process has just created it.
        """
        attempt = Attempt(self.root / "attempts" / str(self.last_attempt + 1))
        try:
            attempt.root.mkdir(parents=True)
        except FileExistsError as e:
            raise UserError(
                f"{attempt.root} was created by another process at the same time: only one process "
                "may train a run; find the other one, then run this command again"
            ) from e
        return attempt

    @property
    def checkpoints_folder(self) -> Path:
        """Folder of all checkpoints."""
        return self.root / "checkpoints"

    def checkpoint(self, step: int) -> Path:
        """Returns the folder of a complete checkpoint."""
        return self.checkpoints_folder / f"step_{step}"

    def partial_checkpoint(self, step: int) -> Path:
        """Returns the folder of a checkpoint whose writing has not ended."""
        return self.checkpoints_folder / f".step_{step}.partial"

    def deleted_checkpoint(self, step: int) -> Path:
        """Returns the folder of a checkpoint that is being deleted."""
        return self.checkpoints_folder / f".step_{step}.deleted"

    @property
    def partial_checkpoints(self) -> list[Path]:
        """Folders of unfinished checkpoints."""
        return sorted(self.checkpoints_folder.glob(".step_*.partial"))

    @property
    def deleted_checkpoints(self) -> list[Path]:
        """Folders of checkpoints whose deletion has not finished."""
        return sorted(self.checkpoints_folder.glob(".step_*.deleted"))

    def export(self, model: int | ModelLabel) -> Path:
        """Returns the folder of the Hugging Face export of a step, an average or an RL model."""
        return self.root / "export" / str(ModelLabel(model) if isinstance(model, int) else model)

    def export_lease(self, model: int | ModelLabel) -> Path:
        """Returns the lock to hold while exporting or deleting a checkpoint."""
        return self.export(model).with_name(f".{self.export(model).name}.lock")

    @property
    def checkpoints(self) -> list[int]:
        """Steps with a complete checkpoint, ascending."""
        return _complete_steps(self.checkpoints_folder)

    @property
    def exports(self) -> list[int]:
        """Steps of SFT with a complete export, ascending."""
        return _complete_steps(self.root / "export")

    def evaluation(self, suite: str, label: ModelLabel, config_hash: str) -> Path:
        """Returns the folder of one evaluation; ``parse_evaluation`` is the inverse."""
        return self.root / "evals" / f"{suite}@{label}-{config_hash[:8]}"

    @property
    def evaluations(self) -> list[Path]:
        """Folders of evaluations, complete or not."""
        folders = (self.root / "evals").glob("*")
        return sorted(p for p in folders if _EVALUATION.fullmatch(p.name) and p.is_dir())

    def notes(self, name: str) -> list[dict[str, Any]]:
        """Returns the intact lines of REQUEUES, SUBMISSIONS or INCIDENTS; empty without a file."""
        return ledger.read(self.root / name, FIELDS[name])

    def note(self, name: str, line: dict[str, Any]) -> None:
        """Appends a line to one of these files, with the time as its first field."""
        ledger.append(self.root / name, line)

    @property
    def evaluation_jobs(self) -> list[dict[str, Any]]:
        """The last line in SUBMISSIONS of each job, oldest job first."""
        return list({note["job"]: note for note in self.notes(SUBMISSIONS)}.values())

    @property
    def awaited(self) -> set[int]:
        """Steps whose evaluation is submitted and not known to have ended, and whose export does
        not exist yet.
        """
        jobs = [note for note in self.evaluation_jobs if not note.get("ended")]
        steps = (ModelLabel.parse(note["label"]).step for note in jobs)
        return {step for step in steps if step is not None} - set(self.exports)

    @property
    def rl(self) -> Path:
        """Folder with the problems for RL, and a subfolder per RL start."""
        return self.root / "rl"

    @property
    def rl_pool(self) -> Path:
        """Folder of the problems that RL may train on."""
        return self.rl / "pool"

    def rl_start(self, step: int, inputs_hash: str) -> Path:
        """Returns the folder of one RL start from the export of ``step``."""
        return self.rl / f"step_{step}-{inputs_hash[:8]}"

    @property
    def report(self) -> Path:
        """The run's report, in Markdown."""
        return self.root / "report.md"

    @property
    def page(self) -> Path:
        """The report as one page of HTML, with every rollout."""
        return self.root / "report.html"

    @property
    def rehearsal_log(self) -> Path:
        """Output of the ranks in the last job's rehearsal."""
        return self.root / "rehearsal.log"

    @property
    def wandb(self) -> Path:
        """Folder that wandb writes its files to."""
        return self.root / "wandb"

    @property
    def loss_picture(self) -> Path:
        """The report's picture of the training loss."""
        return self.root / LOSS_PICTURE

    @property
    def lengths_picture(self) -> Path:
        """The report's picture of the rollouts' lengths."""
        return self.root / "tokens.png"

    @property
    def checkpoints_picture(self) -> Path:
        """The report's picture of the evaluated checkpoints."""
        return self.root / "checkpoints.png"

    @property
    def report_lock(self) -> Path:
        """Lock of the evaluation job that writes the report."""
        return self.root / "report.lock"

    @property
    def watch_lock(self) -> Path:
        """Lock of the process that submits the run's evaluations."""
        return self.root / "watch.lock"

    @property
    def tensorboard(self) -> Path:
        """Folder of TensorBoard's event files."""
        return self.root / "tensorboard"

    def exit_code(self, job: str) -> Path:
        """Returns the file for the exit code of a Slurm job's first task."""
        return self.root / f".exit-{job}"

    def ray_token(self, job: str) -> Path:
        """Returns the file with the secret of a Slurm job's Ray cluster."""
        return self.root / f".ray-token-{job}"


def parse_evaluation(folder: Path) -> tuple[str, ModelLabel]:
    """Returns suite and model of an evaluation, from its folder's name (``Run.evaluation``)."""
    found = _EVALUATION.fullmatch(folder.name)
    assert found, f"{folder} is not an evaluation of a run"
    return found[1], ModelLabel.parse(found[2])


def lock_of(folder: Path) -> Path:
    """Returns the lock of the process that writes an evaluation, or the files for RL."""
    return folder / "lock"


def is_complete(folder: Path) -> bool:
    """Returns True when the folder's manifest, which is written last, exists."""
    return (folder / MANIFEST).exists()


def _complete_steps(folder: Path) -> list[int]:
    names = (re.fullmatch(r"step_(\d+)", p.name) for p in folder.glob("step_*") if is_complete(p))
    return sorted(int(m[1]) for m in names if m)
