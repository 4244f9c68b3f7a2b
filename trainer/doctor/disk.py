"""Checks that the run's checkpoints fit on the disk, that the file system has the semantics that
they rely on, and which file systems support flock.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from omegaconf import DictConfig

from common.files import fsync
from trainer.batching.flops import Shape
from trainer.doctor.findings import FATAL, OK, WARNING, Finding
from trainer.doctor.forecast import Outlook
from trainer.run.folder import Run

STATE_BYTES = 12
"""Bytes per parameter in a checkpoint: float32 weight and AdamW's two moments."""
EXPORT_BYTES = 2
"""Bytes per parameter in an export: bfloat16."""
GB = 1e9
PROBE_BYTES = 32 * 2**20
HUB = "HF_HOME"


def check(config: DictConfig, run: Run, outlook: Outlook) -> Iterator[Finding]:
    """Yields findings on disk space and semantics of the file system that the run is written to,
    and on flock on all three file systems that a run uses.
    """
    from huggingface_hub.constants import HF_HOME

    place = _existing(run.root)
    semantics = _semantics(place)
    if semantics.level == OK and outlook.shape is not None:
        yield _space(config, run, outlook, place)
    yield semantics
    yield locks({"run.root": run.root, "data.dir": Path(config.data.dir), HUB: Path(HF_HOME)})


def checkpoint_bytes(shape: Shape) -> int:
    """Returns an upper bound of the bytes of one checkpoint: a QLoRA's moments take only one byte
    each.
    """
    return STATE_BYTES * shape.trained_parameters


def needed_bytes(config: DictConfig, outlook: Outlook, waiting: bool = False) -> int:
    """Returns the bytes of the kept checkpoints, the one being written, and an export of every
    checkpoint saved.

    A checkpoint is also kept while its evaluation waits in Slurm's queue. Usually the evaluation
    has ended before the checkpoint would be deleted; with ``waiting``, all evaluations wait to the
    end, so every checkpoint is kept.
    """
    assert outlook.shape is not None
    train, total = config.train, outlook.total
    saves = -(-total // train.save_every) if train.save_every else train.epochs
    stay = (
        train.keep_last + train.keep_best + (total // train.keep_every if train.keep_every else 0)
    )
    kept = 1 + min(saves, stay)
    kept = max(kept, saves) if waiting else kept
    return checkpoint_bytes(outlook.shape) * kept + EXPORT_BYTES * outlook.shape.parameters * saves


def _space(config: DictConfig, run: Run, outlook: Outlook, place: Path) -> Finding:
    needed = needed_bytes(config, outlook)
    worst = needed_bytes(config, outlook, waiting=True) if _submits() else needed
    used = sum(_sizes(run.root))
    free = shutil.disk_usage(place).free
    text = f"{place} has {free / GB:,.1f} GB free"
    if used:
        text += f" and holds {used / GB:,.1f} GB of this run's weights"
    text += f"; the kept checkpoints and exports need {needed / GB:,.1f} GB"
    if worst > needed:
        text += f", {worst / GB:,.1f} GB if every evaluation waits in the queue"
    fix = "or run.root=DIR on a larger disk"
    if free + used < needed:
        return Finding(FATAL, "disk space", text, f"make room, train.keep_last=1, {fix}")
    if free + used < worst:
        return Finding(WARNING, "disk space", text, f"make room, a larger train.save_every, {fix}")
    return Finding(OK, "disk space", text)


def _submits() -> bool:
    """Returns whether evaluations are submitted to a queue: in a job, and on a machine with
    sbatch.
    """
    return "SLURM_JOB_ID" in os.environ or shutil.which("sbatch") is not None


def _sizes(folder: Path) -> Iterator[int]:
    """Yields the bytes of each weights file below a folder, in which other processes may write and
    delete meanwhile.
    """
    for parent, _, names in os.walk(folder):  # skips folders that are deleted meanwhile
        for name in names:
            if name.endswith(".safetensors"):
                with suppress(FileNotFoundError):
                    yield (Path(parent) / name).stat().st_size


def _semantics(place: Path) -> Finding:
    """Returns the finding on whether a rename replaces a file immediately, a folder can be fsynced,
    and O_EXCL is exclusive.
    """
    fix = "run.root=DIR on a file system that you may write to and that has POSIX semantics"
    try:
        with tempfile.TemporaryDirectory(
            dir=place, prefix=f".doctor-{os.uname().nodename}-"
        ) as name:
            fault, seconds = _probe(Path(name))
    except OSError as e:
        return Finding(FATAL, "file system", f"{place}: {e}", fix)
    if fault:
        return Finding(FATAL, "file system", f"{place}: {fault}", fix)
    speed = PROBE_BYTES / seconds / GB
    return Finding(
        OK,
        "file system",
        f"{place}: rename, fsync and O_EXCL work; one writer flushes {speed:,.2f} GB/s",
    )


def _probe(folder: Path) -> tuple[str, float]:
    """Returns (what is wrong, empty if nothing; seconds to write and fsync ``PROBE_BYTES``)."""
    old, new = folder / "old", folder / "new"
    old.write_text("old")
    begin = time.perf_counter()
    with new.open("wb") as f:
        f.write(os.urandom(PROBE_BYTES))
        f.flush()
        os.fsync(f.fileno())
    seconds = time.perf_counter() - begin
    new.replace(old)
    fsync(folder)
    if new.exists() or old.stat().st_size != PROBE_BYTES:
        return "a file renamed over another does not replace it", seconds
    (folder / "whole").mkdir()
    (folder / "whole" / "file").touch()
    (folder / "whole").rename(folder / "Whole")
    if not (folder / "Whole" / "file").exists() or (folder / "whole").exists():
        return (
            "a renamed folder keeps its old name, or names are not case-sensitive",
            seconds,
        )
    os.close(os.open(folder / "exclusive", os.O_CREAT | os.O_EXCL))
    try:
        os.close(os.open(folder / "exclusive", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return "", seconds
    return "two processes can create the same lock", seconds


def locks(folders: Mapping[str, Path]) -> Finding:
    """Returns the finding on flock in the folders, by the name of the setting.

    Warmstart's own locks are files and do not need it. huggingface_hub and datasets lock what they
    download into HF_HOME: filelock falls back to lock files on ENOSYS only.
    """
    places = {name: _existing(path) for name, path in folders.items()}
    faults = {name: fault for name, place in places.items() if (fault := _flock_fault(place))}
    if not faults:
        return Finding(OK, "file locks", "flock works")
    text = "; ".join(
        f"no flock in {name} ({places[name]}: {os.strerror(fault)})"
        for name, fault in faults.items()
    )
    match faults.get(HUB):
        case None:
            return Finding(OK, "file locks", f"{text}: not needed there")
        case errno.ENOSYS:
            text += "; downloads use lock files, which a killed download may leave: "
            text += f"rm -r {folders[HUB]}/hub/.locks"
            return Finding(OK, "file locks", text)
    fix = f"set {HUB} to a folder on another file system, then warmstart prefetch"
    return Finding(WARNING, "file locks", f"{text}: downloads from the hub fail", fix)


def _flock_fault(place: Path) -> int | None:
    """Returns the errno of flock on a file in ``place``; None if it works or nothing can be written
    there.
    """
    with (
        suppress(OSError),
        tempfile.NamedTemporaryFile(dir=place, prefix=f".doctor-{os.uname().nodename}-") as file,
    ):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            return e.errno
    return None


def _existing(path: Path) -> Path:
    """Returns the first existing folder among ``path`` and its parents."""
    path = path.absolute()
    return next(p for p in (path, *path.parents) if p.is_dir())
