"""A run's evaluations read back, base beside SFT: the one source of the figures in report and card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from data_prep import benchmarks
from data_prep.files import MANIFEST, read_json, sha256_json
from eval import ledger
from eval.evaluate import PROBLEMS, SETTINGS
from eval.intervals import LEVEL, interval
from eval.metrics import METRICS, TOTAL, per_problem
from trainer.rundir import Run, is_complete

BASE = "base"
NEAR_ZERO = 0.02
"""A pass@1 at most this is called near zero."""
LEGEND = (
    "pass@1 is the share of right rollouts, a mean over problems; any, perfect and maj are the shares of problems "
    "with one right rollout, with right ones only, and whose most frequent answer is right. In brackets "
    f"{LEVEL:.0%} intervals from a bootstrap over the problems; those of an improvement compare problem by problem."
)


@dataclass(frozen=True)
class Evaluation:
    """One complete evaluation."""

    folder: Path
    label: str
    settings: dict[str, Any]
    figures: dict[str, dict[str, Any]]

    @property
    def step(self) -> int:
        return -1 if self.label == BASE else int(self.label.removeprefix("step_"))

    @cached_property
    def values(self) -> dict[str, dict[str, list[float]]]:
        """Set -> accuracy -> its value for each problem."""
        sets: dict[str, list[Any]] = {}
        for problem in benchmarks.read_problems(self.folder / PROBLEMS):
            sets.setdefault(problem.set, []).append(problem)
        grades = ledger.read_grades(self.folder / ledger.GRADES)
        return {name: per_problem(members, grades, self.settings["rollouts"]) for name, members in sets.items()}


@dataclass(frozen=True)
class Comparison:
    """Evaluations of the base model and of one step under the same settings; at least one is there."""

    base: Evaluation | None
    sft: Evaluation | None

    @property
    def known(self) -> Evaluation:
        """The step's evaluation where there is one."""
        known = self.sft or self.base
        assert known is not None
        return known

    @property
    def both(self) -> list[Evaluation]:
        """Those that are there, base first."""
        return [e for e in (self.base, self.sft) if e]


def newest(run: Run) -> Comparison:
    """The newest step that was evaluated, against the base model. Raises ValueError when nothing was evaluated yet."""
    groups = _groups(run)
    if not groups:
        raise ValueError(f"{run.root} has no complete evaluation yet: warmstart eval {run.root}")
    group = max(groups, key=lambda group: (max(group), _age(group[max(group)])))
    step = max(group)
    return Comparison(group.get(-1), group[step] if step >= 0 else None)


def of_step(run: Run, step: int) -> list[Comparison]:
    """Every evaluation of a step against the base model, the newest first; the base model alone when there is none."""
    groups = sorted(_groups(run), key=lambda group: _age(group[max(group)]), reverse=True)
    found = [Comparison(group.get(-1), group.get(step)) for group in groups if step in group or -1 in group]
    return [c for c in found if c.sft] or found


def table(comparison: Comparison, reference: Mapping[str, Any] | None) -> str:
    """Set, base, SFT, improvement in percent pass@1, then the other accuracies of all; published figures beside."""
    known = comparison.known
    n = known.settings["rollouts"]
    rows = [(name, "pass@1") for name in known.figures if name != TOTAL or len(known.figures) > 2]
    rows += [(TOTAL, f"{accuracy}@{n}") for accuracy in ("any", "perfect", "maj")]
    given = [_given(reference, known, name, metric) for name, metric in rows]
    sft = "SFT" + (f" ({comparison.sft.label})" if comparison.sft else "")
    titles = ["pass@1", BASE, sft, "improvement", *(["published base", "published SFT"] if any(given) else [])]
    lines = [titles, ["---"] + ["---:"] * (len(titles) - 1)]
    for (name, metric), figures in zip(rows, given, strict=True):
        title = f"{_title(name)} ({known.figures[name]['problems']} problems)"
        cells = [title if metric == "pass@1" else f"{metric}, all", *_cells(comparison, name, metric)]
        if any(given):
            cells += [f"{figures[k]:.2f} %" if k in figures else "" for k in ("base", "sft")]
        lines.append(cells)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def protocol(evaluation: Evaluation) -> str:
    """How the rollouts were sampled and judged."""
    sampling = evaluation.settings
    return (
        f"{sampling['rollouts']} rollouts a problem, temperature {sampling['temperature']}, top-p "
        f"{sampling['top_p']}, at most {sampling['max_tokens']:,} tokens; exact match of the last balanced "
        "`\\boxed{}` after `</think>`"
    )


def published(reference: Mapping[str, Any]) -> str:
    """Whose figures the published ones are."""
    return f"Published figures: {reference['source']}; measured by its authors, not by this run."


def lengths(comparison: Comparison) -> str:
    """Tokens of the rollouts, and how many of them the budget ended."""
    rows = ["| | median tokens | 90 % | longest | hit the budget |", "|---|---:|---:|---:|---:|"]
    for e in comparison.both:
        figures, length = e.figures[TOTAL], e.figures[TOTAL]["tokens"]
        hits = round(figures["hit_budget"] * figures["rollouts"])
        rows.append(
            f"| {e.label} | {length['p50']:,} | {length['p90']:,} | {length['max']:,} "
            f"| {hits:,} of {figures['rollouts']:,} ({figures['hit_budget']:.1%}) at {e.settings['max_tokens']:,} |"
        )
    return "\n".join(rows)


def _groups(run: Run) -> list[dict[int, Evaluation]]:
    """Complete evaluations by step (the base model's is -1), those of the same settings together."""
    groups: dict[str, dict[int, Evaluation]] = {}
    for folder in filter(is_complete, run.evaluations):
        settings = read_json(folder / SETTINGS)
        same = sha256_json({k: v for k, v in settings.items() if k != "model"})
        found = Evaluation(folder, settings["model"]["label"], settings, read_json(folder / METRICS))
        groups.setdefault(same, {})[found.step] = found
    return list(groups.values())


def _age(evaluation: Evaluation) -> float:
    return (evaluation.folder / MANIFEST).stat().st_mtime


def _given(reference: Mapping[str, Any] | None, known: Evaluation, name: str, metric: str) -> Mapping[str, float]:
    """The published figures of the same problems, if there are any."""
    if not reference or known.settings["limit"] is not None:
        return {}
    sets = reference.get("pass@1", {}).keys() - {TOTAL}
    return {} if name == TOTAL and known.values.keys() != sets else reference.get(metric, {}).get(name, {})


def _title(name: str) -> str:
    return "all" if name == TOTAL else name


def _cells(comparison: Comparison, name: str, metric: str) -> list[str]:
    """Base, SFT and improvement, with intervals."""
    drawn = [_drawn(e, name, metric) if e else None for e in (comparison.base, comparison.sft)]
    cells = []
    for e, values in zip((comparison.base, comparison.sft), drawn, strict=True):
        if e is None or values is None:
            cells.append("not evaluated")
        else:
            lower, upper = interval(values)
            cells.append(f"{e.figures[name][metric] * 100:.2f} % [{lower * 100:.1f}, {upper * 100:.1f}]")
    before, after = drawn
    if before is None or after is None:
        return [*cells, ""]
    assert comparison.base and comparison.sft
    gain = comparison.sft.figures[name][metric] - comparison.base.figures[name][metric]
    pairs = [[b - a for a, b in zip(*sets, strict=True)] for sets in zip(before, after, strict=True)]
    lower, upper = interval(pairs, low=-1.0)
    return [*cells, f"{gain * 100:+.2f} [{lower * 100:+.1f}, {upper * 100:+.1f}]"]


def _drawn(evaluation: Evaluation, name: str, metric: str) -> Sequence[Sequence[float]]:
    return [values[metric] for of, values in evaluation.values.items() if name in (TOTAL, of)]
