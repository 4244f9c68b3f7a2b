"""Takes over the rollouts of an evaluation that differs only in the number of rollouts per problem.

A rollout's seed depends on the settings' seed, its problem and k (``rollout_seed``), not on how
many rollouts there are. So a larger evaluation can take the rollouts of a smaller one and generate
only the rest; a smaller one generates nothing.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from common.errors import UserError
from common.files import damaged, file_errors, read_json
from common.records import Key, Problem, Rollout
from eval.evaluation_settings import SETTINGS, EvaluationSettings
from eval.generation import rollout_files
from eval.generation.generate import rollout_seed
from trainer.run.folder import is_complete


def take_over(
    folder: Path, settings: EvaluationSettings, problems: Sequence[Problem], others: Iterable[Path]
) -> None:
    """Copies missing rollouts into ``folder`` from whichever of the evaluations ``others`` has the
    most of them, complete or not, and reports it on stderr. The caller must hold the folder's lock.

    The others are only read, and may be growing. A damaged one is skipped and named.
    """
    path = folder / rollout_files.ROLLOUTS
    done = rollout_files.read(path)
    missing = {
        key
        for p in problems
        for k in range(settings.sampling.rollouts)
        if (key := (p.set, p.id, k)) not in done
    }
    if not missing:
        return
    found: dict[Path, list[Rollout]] = {}
    for other in others:
        try:
            with file_errors(other):
                if other != folder and _is_alike(other, settings):
                    there = _rollouts(other).values()
                    found[other] = [r for r in there if r.key in missing and _is_own(r, settings)]
        except UserError as e:
            print(f"nothing is taken over from {other.name}: {e}", file=sys.stderr, flush=True)
    source = max(found, key=lambda other: len(found[other]), default=None)
    if source is None or not found[source]:
        return
    with path.open("a", encoding="utf-8") as file:
        for rollout in found[source]:
            rollout_files.append(
                file, replace(rollout, taken_from=rollout.taken_from or source.name)
            )
    print(
        f"{folder.name}: {len(found[source]):,} rollouts are taken over from {source.name}, "
        f"{len(missing) - len(found[source]):,} are to be generated",
        file=sys.stderr,
        flush=True,
    )


def usable(settings: EvaluationSettings, others: Iterable[Path]) -> bool:
    """Returns whether rollouts could be taken over from one of the evaluations ``others``."""
    for other in others:
        with suppress(UserError):  # a damaged one, which ``take_over`` names
            if _is_alike(other, settings):
                return True
    return False


def taken_over(rollouts: Iterable[Rollout]) -> dict[str, int]:
    """Returns the number of rollouts taken over, by the name of the folder that generated them."""
    return dict(Counter(r.taken_from for r in rollouts if r.taken_from is not None))


def _is_alike(other: Path, settings: EvaluationSettings) -> bool:
    """Returns whether an evaluation's settings differ only in the number of rollouts."""
    path = other / SETTINGS
    found = read_json(path) if path.exists() else None
    number = {"rollouts": settings.sampling.rollouts}
    return isinstance(found, dict) and found | number == settings.to_json()


def _rollouts(other: Path) -> dict[Key, Rollout]:
    """Returns an evaluation's rollouts. Raises UserError when they are damaged: a line is not a
    rollout, or a complete evaluation's file has another hash than its manifest.
    """
    path = other / rollout_files.ROLLOUTS
    if is_complete(other) and path.name in damaged(other):
        raise UserError(f"{path} has changed since the evaluation was completed")
    return rollout_files.read(path, growing=True)


def _is_own(rollout: Rollout, settings: EvaluationSettings) -> bool:
    """Returns whether a rollout has the seed that its key has under the settings."""
    return rollout.seed == rollout_seed(settings.sampling.seed, rollout.key)
