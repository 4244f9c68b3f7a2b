"""Compares a run's SFT evaluations with the base model's. It is the only source of the figures in
report, page and card.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.errors import UserError
from common.text import percent
from data_prep.tokenizer.prompt import Prompt
from eval.generation.vllm_actor import NF4
from eval.grading.intervals import GAFFKE, LEVEL, STUDENT, WILSON, difference, interval
from eval.grading.metrics import TOTAL, accuracies
from eval.results import evaluation as evaluations
from eval.results import published
from eval.results.evaluation import Evaluation, Values
from trainer.run.folder import Run, is_complete
from trainer.run.model_label import BASE, ModelLabel

NEAR_ZERO = 0.02
"""A pass@1 up to this is called near zero."""
ANSWERS = {
    "boxed": "the last balanced `\\boxed{}` after `</think>`",
    "answer_is": 'the number after "answer is", or else the last number, after `</think>`',
    "gsm8k_synth": 'the number after "answer is", or else the last one of two or more characters',
}
"""Extractor -> the part of the answer that is matched, as text."""
KINDS = {"sft": "SFT", "average": "average", "rl": "RL"}
"""Kind of model -> title of its column."""
EXACT = "†"
"""Marks an interval that is Gaffke's bound."""
OTHERWISE = "‡"
"""Marks published figures that were measured under another protocol than the evaluation."""
MARKED = (
    f"{EXACT} {GAFFKE}, used when too few problems are right, wrong or changed to estimate a "
    "variance."
)
LEGEND = (
    "pass@1 is the share of right rollouts, averaged over problems. any, perfect and maj are the "
    "shares of problems with at least one right rollout, with only right ones, and whose most "
    f"frequent answer is right. Brackets hold {percent(LEVEL, 0)} intervals over problems like "
    f"these: {WILSON} with the variance between problems; {STUDENT} for an improvement, paired by "
    f"problem; {MARKED}"
)
LEGEND_OF_ONE = LEGEND.replace(f"; {STUDENT} for an improvement, paired by problem", "")
"""The legend for a model that is not compared with another."""


@dataclass(frozen=True)
class Comparison:
    """Evaluations of the base model, of one step, of averages and of RL's models under the same
    settings; at least one exists.
    """

    base: Evaluation | None
    sft: Evaluation | None
    rl: Sequence[Evaluation] = ()
    averages: Sequence[Evaluation] = ()
    steps: Sequence[Evaluation] = ()
    """All evaluated steps of SFT in order, including ``sft``; empty if they were not collected."""

    @property
    def known(self) -> Evaluation:
        """The step's evaluation if there is one, otherwise the base model's, otherwise that of the
        last average or of RL's last model.
        """
        return self.sft or self.base or [*self.averages, *self.rl][-1]

    @property
    def bare(self) -> str | None:
        """The model's name if the run evaluates it without training one, else None."""
        return self.known.bare

    @property
    def legend(self) -> str:
        """The meaning of the headline's figures and brackets."""
        return LEGEND_OF_ONE if self.bare else LEGEND

    @property
    def both(self) -> list[Evaluation]:
        """The evaluations of base and SFT that exist, otherwise ``known``."""
        return [e for e in (self.base, self.sft) if e] or [self.known]

    @property
    def all(self) -> list[Evaluation]:
        """The evaluations that exist: base, SFT, averages, RL."""
        return [e for e in (self.base, self.sft, *self.averages, *self.rl) if e]

    @property
    def named(self) -> dict[str, Evaluation]:
        """The evaluations that exist, by name."""
        return {e.name: e for e in self.all}


def newest(run: Run, partial: bool = False) -> Comparison:
    """Returns the latest evaluated step of SFT against the base model, and averages and RL's models
    under the same settings; with ``partial``, incomplete evaluations count too.

    Raises UserError when the run has no such evaluation.
    """
    groups = evaluations.groups(run, partial)
    if not groups:
        begun = ", ".join(
            folder.name
            for folder in run.evaluations
            if evaluations.has_begun(folder)
            and not is_complete(folder)
            and not evaluations.is_of_pool(folder)
        )
        look = ""
        if begun and not partial:
            look = f" (not finished: {begun}; --partial shows their rollouts so far)"
        raise UserError(
            f"{run.root} has no complete evaluation yet{look}: warmstart eval {run.root}"
        )
    group = max(groups, key=_rank)
    latest = _latest(group)
    sft = group[latest] if latest.kind == "sft" else None
    rl, averages, steps = (_of_kind(group, kind) for kind in ("rl", "average", "sft"))
    return Comparison(group.get(BASE), sft, rl, averages, steps)


def _of_kind(group: Mapping[ModelLabel, Evaluation], kind: str) -> list[Evaluation]:
    return [group[label] for label in sorted(group) if label.kind == kind]


def _latest(group: Mapping[ModelLabel, Evaluation]) -> ModelLabel:
    """Returns the latest step of SFT, otherwise the base model, otherwise the last average or RL's
    last model.
    """
    return max([label for label in group if label.kind in ("base", "sft")] or group)


def _rank(group: Mapping[ModelLabel, Evaluation]) -> tuple[bool, ModelLabel, float]:
    latest = _latest(group)
    return latest.kind in ("base", "sft"), latest, group[latest].age


def of_model(run: Run, label: ModelLabel, partial: bool = False) -> list[Comparison]:
    """Returns every evaluation of a model against the base model, newest first; the base model's if
    there are none, or if it is the model.
    """
    found = [
        Comparison(group.get(BASE), None if label == BASE else group.get(label))
        for group in evaluations.groups(run, partial)
        if label in group or BASE in group
    ]
    of_step = [c for c in found if c.sft]
    return sorted(of_step or found, key=lambda c: c.known.age, reverse=True)


def others(run: Run, compared: Comparison, partial: bool = False) -> list[Comparison]:
    """Returns evaluations of the same model under other settings than those of ``compared``, as
    ``of_model`` orders.
    """
    found = of_model(run, compared.known.label, partial)
    return [c for c in found if c.known.folder != compared.known.folder]


def headline(comparison: Comparison, reference: Mapping[str, Any] | None) -> list[list[str]]:
    """Returns titles, then one line per set with pass@1 of base and SFT and the improvement; then
    the other accuracies over all problems.

    Adds columns for published figures of the same problems, and for our pass@1 at their budget if
    ours is larger. A bare model has one column, with its name.
    """
    known = comparison.known
    rows = [(name, "pass@1") for name in known.figures if name != TOTAL or len(known.figures) > 2]
    rows += [(TOTAL, metric) for metric in accuracies(known.n)[1:] if known.n > 1]
    given = [published.figures(reference, known, name, metric) for name, metric in rows]
    cap = (reference or {}).get("max_tokens", known.settings.sampling.max_tokens)
    at_cap = [
        _at_budget(comparison, name, cap) if metric == "pass@1" else "" for name, metric in rows
    ]
    sft = "SFT"
    if trained := comparison.sft:
        sft = f"{KINDS[trained.label.kind]} ({trained.label})"
    titles = ["pass@1", "base", sft, "improvement"]
    kinds = ["base", "sft"]
    if comparison.bare:
        titles, kinds = ["pass@1", comparison.bare], ["base"]
    beside = any(given) and cap < known.settings.sampling.max_tokens and any(at_cap)
    if beside:
        titles.append(f"at {cap:,} tokens")
    if any(given):
        differs = reference is not None and any(published.differences(reference, known.settings))
        mark = OTHERWISE if differs else ""
        titles += [f"published base{mark}", f"published SFT{mark}"][: len(kinds)]
    lines = [titles]
    for (name, metric), figures, capped in zip(rows, given, at_cap, strict=True):
        title = f"{shown(name)} ({known.figures[name]['problems']} problems)"
        title = title if metric == "pass@1" else f"{metric}, all"
        own = cells(comparison, name, metric)
        line = [title + missing(name, *comparison.both), *(own[:1] if comparison.bare else own)]
        if beside:
            line.append(capped)
        if any(given):
            line += [f"{figures[k]:.2f} %" if k in figures else "" for k in kinds]
        lines.append(line)
    return lines


def shown(name: str) -> str:
    """Returns a table's name for a set, or for all of them."""
    return "all" if name == TOTAL else name


def missing(name: str, *these: Evaluation) -> str:
    """Returns a note on how many rollouts of a set (or of all) partial evaluations lack; empty if
    none is partial.
    """
    partial = [e for e in these if e.is_partial]
    wanted = sum(e.n for e in partial for p in e.problems if name in (TOTAL, p.set))
    there = sum(name in (TOTAL, key[0]) for e in partial for key in e.grades)
    return f" (partial: {wanted - there:,} rollouts missing)" if partial else ""


def marked(text: str) -> list[str]:
    """Returns the meaning of an interval's mark, if the text has one."""
    return [MARKED] if EXACT in text else []


def protocol(evaluation: Evaluation) -> str:
    """Returns how the rollouts were sampled and judged, as text."""
    sampling = evaluation.settings.sampling
    rollouts = "1 rollout" if sampling.rollouts == 1 else f"{sampling.rollouts} rollouts"
    weights = ", weights in 4 bits (NF4)" if evaluation.settings.dtype == NF4 else ""
    return (
        f"{asked(evaluation.settings.prompt)}{rollouts} per problem{weights}, "
        f"temperature {sampling.temperature}, top-p {sampling.top_p}, "
        f"at most {sampling.max_tokens:,} tokens; exact match of "
        f"{ANSWERS[evaluation.settings.answer_style]}"
    )


def asked(prompt: Prompt) -> str:
    """Returns what a prompt adds to the problem, as the start of a sentence; empty if nothing."""
    names = {"prompt": "asked as", "system": "system turn", "prefill": "answer begun with"}
    # As JSON, so that line breaks do not break a table.
    parts = (
        f"{names[key]} `{json.dumps(text, ensure_ascii=False)}`"
        for key, text in prompt.to_json().items()
    )
    return "".join(f"{part}; " for part in parts)


def estimate(sets: Sequence[Sequence[float]]) -> str:
    """Returns the mean over the problems of all sets, in percent, with its interval."""
    mean, lower, upper, mark = bounded(sets)
    return f"{percent(mean)} [{lower * 100:.1f}, {upper * 100:.1f}]{mark}"


def bounded(sets: Sequence[Sequence[float]]) -> tuple[float, float, float, str]:
    """Returns the mean over the problems of all sets, both ends of its interval, and its mark."""
    found = interval(sets)
    mean = sum(map(sum, sets)) / sum(map(len, sets))
    return mean, found.lower, found.upper, EXACT if found.method == GAFFKE else ""


def scaled(sets: Sequence[Sequence[float]], scale: int, digits: int) -> str:
    """Returns ``scale`` times the mean over the problems of all sets, with its interval."""
    *values, mark = bounded(sets)
    mean, lower, upper = (f"{scale * value:.{digits}f}" for value in values)
    return f"{mean} [{lower}, {upper}]{mark}"


def counted(sets: Sequence[Sequence[float]], evaluation: Evaluation) -> str:
    """Returns ``estimate``; with one rollout per problem it has the counts: 1,121 / 1,319 = 84.99
    %.
    """
    counts = f"{sum(map(sum, sets)):,.0f} / {sum(map(len, sets)):,} = " if evaluation.n == 1 else ""
    return counts + estimate(sets)


def by_set(values: Values, name: str = TOTAL) -> list[list[float]]:
    """Returns the values of one set's problems, or of all problems, as one list per set."""
    sets: dict[str, list[float]] = {}
    for (of, _), value in values.items():
        if name in (TOTAL, of):
            sets.setdefault(of, []).append(value)
    return list(sets.values())


def change(before: Values, after: Values) -> Values:
    """Returns the difference ``after`` - ``before`` for each problem that both have."""
    return {key: after[key] - value for key, value in before.items() if key in after}


def cells(comparison: Comparison, name: str, metric: str) -> list[str]:
    """Returns base, SFT and improvement, with intervals."""
    found = []
    for e in (comparison.base, comparison.sft):
        if e is None:
            found.append("not evaluated")
        elif sets := by_set(e.values[metric], name):
            found.append(counted(sets, e))
        else:
            found.append("no rollout yet")
    if not (comparison.base and comparison.sft):
        return [*found, ""]
    pairs = by_set(change(comparison.base.values[metric], comparison.sft.values[metric]), name)
    return [*found, gain(pairs) if pairs else ""]


def gain(pairs: Sequence[Sequence[float]]) -> str:
    """Returns the mean difference in points, with its interval."""
    found = difference(pairs)
    mark = EXACT if found.method == GAFFKE else ""
    return f"{found.mean * 100:+.2f} [{found.lower * 100:+.1f}, {found.upper * 100:+.1f}]{mark}"


def _at_budget(comparison: Comparison, name: str, budget: int) -> str:
    """Returns pass@1 of base and SFT if rollouts longer than ``budget`` tokens counted as wrong."""
    curves = [dict(e.figures[name]["by_budget"]) for e in comparison.both if name in e.figures]
    return " → ".join(percent(curve[budget]) for curve in curves if budget in curve)
