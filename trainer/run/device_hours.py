"""Device-hours of a run by stage, from its metrics and its evaluations' manifests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.files import MANIFEST, read_json
from common.text import markdown_table
from trainer.recipe import load as configs
from trainer.run import models, step_metrics
from trainer.run.folder import Run, parse_evaluation

CUDA, CPU = "GPU-hours", "CPU process-hours"


@dataclass(frozen=True)
class Cost:
    """Device-hours of one stage."""

    stage: str
    hours: float
    unit: str
    note: str


def costs(run: Run, evaluations: Iterable[Path], until: int | None = None) -> list[Cost]:
    """Returns device-hours by stage: training up to step ``until`` (steps that a restart repeated
    count again), and the complete evaluations in the folders ``evaluations``.

    A step costs its slowest rank's time x ranks; an evaluation costs the wall time of the call that
    finished it x its engines' devices.
    """
    bare = models.bare(run)
    found = [] if bare else [Cost("data", 0, CUDA, "CPU work, not timed")]
    hours: dict[str, float] = {}
    ranks: set[int] = set()
    count = 0
    for attempt in run.attempts:
        steps = step_metrics.of_attempt(attempt).values()
        if not steps:
            continue
        unit = CUDA if configs.read(attempt.config).device == "cuda" else CPU
        for step in steps:
            if until is None or step["step"] <= until:
                hours[unit] = hours.get(unit, 0) + step["seconds"] * ranks_of(step) / 3600
                ranks.add(ranks_of(step))
                count += 1
    for unit, used in hours.items():
        many = " or ".join(map(str, sorted(ranks)))
        noun = "rank" if ranks == {1} else "ranks"
        note = (
            f"{count:,} optimizer steps on {many} {noun}; without start-up, validation and saving"
        )
        found.append(Cost("training", used, unit, note))
    return found + [cost for folder in evaluations for cost in _evaluation(folder, bare)]


def ranks_of(step: dict[str, Any]) -> int:
    """Returns the number of ranks that trained a step, from its metrics."""
    return round(step["tokens_per_s"] / step["tokens_per_s_per_gpu"])


def table(costs: Iterable[Cost]) -> str:
    """Returns a Markdown table of stage, hours and note."""
    rows = ((cost.stage, shown(cost), cost.note) for cost in costs)
    return markdown_table([("stage", "used", ""), *rows], "lrl")


def shown(cost: Cost) -> str:
    """Returns the hours with their unit."""
    return f"{cost.hours:,.1f} {cost.unit}" if cost.hours >= 10 else f"{cost.hours:.3g} {cost.unit}"


def _evaluation(folder: Path, bare: str | None) -> list[Cost]:
    """Returns the cost of a complete evaluation; empty if it was not timed. ``bare`` is the
    evaluated model's name if the run trains none.
    """
    made = read_json(folder / MANIFEST)
    if "wall_seconds" not in made:
        return []
    suite, label = parse_evaluation(folder)
    device = "GPU" if made["device"] == "cuda" else "engine"
    many = f"{made['devices']} {device}{'' if made['devices'] == 1 else 's'}"
    note = f"{made['wall_seconds']:,.0f} s on {many}, engine start-up included"
    unit = CUDA if made["device"] == "cuda" else CPU
    return [
        Cost(
            f"evaluation of {bare or label} ({suite})",
            made["wall_seconds"] * made["devices"] / 3600,
            unit,
            note,
        )
    ]
