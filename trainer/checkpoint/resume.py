"""Chooses the checkpoint that a run resumes from: the newest one that is complete and intact."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError
from common.files import MANIFEST, damaged, read_json, write_text
from trainer.run.folder import SCALARS, Run
from trainer.run.trained_from import check_same


@dataclass(frozen=True)
class Start:
    """The checkpoint that a run resumes from, and why."""

    step: int
    """Step of the checkpoint; 0 without one."""
    notes: list[str]
    """One sentence per checkpoint chosen or skipped."""
    bad: list[int]
    """Steps of the newer, damaged checkpoints."""


def choose(run: Run, identity: dict[str, str]) -> Start:
    """Returns the newest checkpoint whose files and hashes are exactly those of its manifest.
    Changes nothing.

    Raises UserError when there are checkpoints but none is intact, or when the chosen one was
    trained from another dataset or model than ``identity``.
    """
    notes = [f"{folder} is ignored: its save was interrupted" for folder in run.partial_checkpoints]
    bad: list[int] = []
    for step in reversed(run.checkpoints):
        folder = run.checkpoint(step)
        if fault := _fault(folder):
            notes.append(f"{folder} is skipped: {fault}")
            bad.append(step)
            continue
        check_same(read_json(folder / SCALARS)["identity"], identity, folder)
        return Start(step, [*notes, f"resuming from {folder}"], bad)
    if bad:
        raise UserError(
            f"{run.root} has checkpoints, but none is intact:\n  "
            + "\n  ".join(notes)
            + f"\nrestore one from a copy, or start over: rm -r {run.checkpoints_folder}"
        )
    return Start(0, [*notes, "starting from the base model"], bad)


def prepare(run: Run, start: Start) -> None:
    """Makes the run's folder match ``start``. The caller must hold the run's lock.

    Renames damaged checkpoints to ``step_N.damaged``, removes unfinished ones and rewrites
    ``latest``.
    """
    for step in start.bad:
        folder = run.checkpoint(step)
        folder.rename(_free(folder.with_name(f"{folder.name}.damaged")))
    for folder in run.partial_checkpoints:
        shutil.rmtree(folder)
    if start.step:
        write_text(run.latest, f"{run.checkpoint(start.step).name}\n")


def _fault(folder: Path) -> str | None:
    """Returns what is wrong with a complete checkpoint; None if it is intact."""
    try:
        bad = damaged(folder)
        listed = read_json(folder / MANIFEST)["files"]
    except UserError as e:
        return str(e)
    if bad:
        return f"{', '.join(bad)} {'is' if len(bad) == 1 else 'are'} missing or damaged"
    extra = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    unknown = [name for name in extra if name not in listed and name != MANIFEST]
    return (
        f"{', '.join(unknown)} {'is' if len(unknown) == 1 else 'are'} not in its manifest"
        if unknown
        else None
    )


def _free(path: Path) -> Path:
    """Returns ``path``, or the first of path-2, path-3 ..., that does not exist."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free
