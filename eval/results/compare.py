"""``warmstart compare A B ...``: compares evaluations of several models, paired by problem."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import sqrt
from pathlib import Path

from common.errors import UserError
from common.text import markdown_table, percent
from eval.grading.intervals import GAFFKE, LEVEL, STUDENT, Difference, difference, interval
from eval.grading.metrics import TOTAL, accuracies, rerun_error, tallies
from eval.results import base_vs_sft, compare_groups, group_targets, lengths, published
from eval.results.base_vs_sft import EXACT, by_set, change, counted, estimate, missing, shown
from eval.results.common_problems import only, other_accuracies, p_value, set_names
from eval.results.compare_targets import Subject, check, find
from eval.results.evaluation import Evaluation, check_graders

LEGEND = (
    f"Brackets hold {percent(LEVEL, 0)} intervals over problems like these. A difference is the "
    f"mean over problems of B minus A ({STUDENT}; {EXACT} {GAFFKE}, used when too few problems "
    "changed). It is not significant if its interval holds 0; of two equal models, one in twenty "
    "lines shows a significant difference. The rerun error is the standard error over rollouts "
    "with the problems fixed."
)
PUBLISHED = (
    "Published figures have sampling error too. If their number of rollouts is known, an upper "
    "bound of it is shown (all problems equally hard). On the same problems, two evaluations of "
    "one model differ only by rerun errors: a figure inside our interval is not yet reproduced."
)


def compare(targets: Sequence[str], partial: bool = False, across_prompts: bool = False) -> str:
    """Returns Markdown: every model's accuracies and lengths, each against the first and against
    its published figures.

    A target is a run (its newest evaluation), RUN@base, RUN@STEP, RUN@avg-NAME, RUN@rl-N or an
    evaluation's folder; or a group of replicates, which is several of these joined by commas
    (:mod:`eval.results.compare_groups`). Accuracies are over the problems that all evaluations
    share, lengths over all rollouts.

    Raises UserError when there are fewer than two targets and no group; when two targets are the
    same evaluation; when a target is none of these or has no complete evaluation (``partial``
    accepts an incomplete one, which each line then states); and when the evaluations differ in
    their sampling settings, in their prompts (unless ``across_prompts``) or in the grader's
    version, or share no problem.
    """
    members = [group_targets.parts(target) for target in targets]
    if any(len(of) > 1 for of in members):
        return compare_groups.compare(members, partial, across_prompts)
    if len(targets) < 2:
        raise UserError(
            "compare needs at least two evaluations: warmstart compare RUN@base RUN, or warmstart "
            "compare RUN OTHER; one alone can be a group of seeds: RUN,RUN,RUN"
        )
    subjects = [find(target, partial) for target in targets]
    _check_distinct(targets, subjects)
    if len({s.name for s in subjects}) < len(subjects):
        subjects = [Subject(str(s.evaluation.folder), s.evaluation, s.reference) for s in subjects]
    check_graders(s.evaluation for s in subjects)
    first, *others = subjects
    for other in others:
        check(first, other, across_prompts)
    keys = set.intersection(*(set(s.evaluation.values["pass@1"]) for s in subjects))
    if not keys:
        raise UserError("no problem has a rollout in each of these evaluations")
    parts = [
        markdown_table(_models(subjects, keys)),
        "\n".join(f"- {line}" for line in _notes(subjects, keys)),
    ]
    parts += [
        "## Lengths of all rollouts",
        lengths.table({s.name: s.evaluation for s in subjects}),
    ]
    for other in others:
        parts += [f"## A = {first.name}, B = {other.name}", *_pair(first, other, keys)]
    has_published = False
    for subject in subjects:
        lines = _published(subject)
        if len(lines) > 1:
            parts += [f"## {subject.name} against published figures", markdown_table(lines)]
            has_published = True
    if has_published:
        sources = dict.fromkeys(
            published.note(s.reference, s.evaluation) for s in subjects if s.reference
        )
        parts.append("\n".join(f"- {text}" for text in (*sources, PUBLISHED)))
    return "\n\n".join(parts)


def _check_distinct(targets: Sequence[str], subjects: Sequence[Subject]) -> None:
    named: dict[Path, str] = {}
    for target, subject in zip(targets, subjects, strict=True):
        folder = subject.evaluation.folder
        if other := named.get(folder.resolve()):
            raise UserError(
                f"{other} and {target} are the same evaluation ({folder}): compare it with another "
                "one, for example RUN@base, RUN@STEP or another run"
            )
        named[folder.resolve()] = target


def _models(subjects: Sequence[Subject], keys: set[tuple[str, str]]) -> Iterator[list[str]]:
    """Yields titles, then one line per model: pass@1 per set and over all, its rerun error, and the
    other accuracies if all models have the same n.
    """
    names = set_names(keys)
    others = other_accuracies(*(s.evaluation for s in subjects))
    yield ["pass@1", *map(shown, names), "rerun error", *others]
    for s in subjects:
        cells = [
            counted(by_set(only(s.evaluation.values["pass@1"], keys), name), s.evaluation)
            for name in names
        ]
        error = _rerun(s.evaluation, keys, TOTAL)
        cells.append("unknown" if error is None else f"± {error * 100:.2f}")
        cells += [estimate(by_set(only(s.evaluation.values[metric], keys))) for metric in others]
        yield [s.name + missing(TOTAL, s.evaluation), *cells]


def _notes(subjects: Sequence[Subject], keys: set[tuple[str, str]]) -> Iterator[str]:
    counts = ", ".join(f"{s.name} {s.evaluation.n}" for s in subjects)
    yield (
        f"Accuracies are over the {len(keys):,} problems that all evaluations have. Rollouts per "
        f"problem: {counts}."
    )
    for s in subjects:
        if left := len(s.evaluation.problems) - len(keys):
            yield f"{left:,} problems of {s.name} are left out.{missing(TOTAL, s.evaluation)}"
    if len({s.evaluation.settings.tokenizer for s in subjects}) > 1:
        yield "The tokenizers differ: each model's budget counts its own tokens."
    if len({s.evaluation.settings.dtype for s in subjects}) > 1:
        weights = ", ".join(f"{s.name} {s.evaluation.settings.dtype}" for s in subjects)
        yield f"The weights differ in precision (eval.dtype): {weights}."
    if len({s.evaluation.settings.prompt for s in subjects}) > 1:
        yield "The prompts differ, so a difference is not the models' alone:"
        for s in subjects:
            words = base_vs_sft.asked(s.evaluation.settings.prompt).removesuffix("; ")
            yield f"{s.name}: {words or 'the bare problem'}."
    yield LEGEND


def _pair(first: Subject, other: Subject, keys: set[tuple[str, str]]) -> list[str]:
    """Returns the paired comparison as a sentence about all problems, and a table."""
    a, b = first.evaluation, other.evaluation
    *sets, every = set_names(keys)
    rows = [(name, "pass@1") for name in (*sets, every)]
    rows += [(every, metric) for metric in other_accuracies(a, b)]
    lines = [["B - A, points", "problems", "difference", "p", "rerun error", "verdict"]]
    for name, metric in rows:
        pairs = _pairs(a, b, keys, name, metric)
        found = difference(pairs)
        title, rerun = f"{metric}, all", ""
        if metric == "pass@1":
            title, rerun = shown(name), _rerun_of_difference(a, b, keys, name)
        title += missing(name, a, b)
        problems = f"{sum(map(len, pairs)):,}"
        cells = [title, problems, base_vs_sft.gain(pairs), p_value(found.p), rerun, _verdict(found)]
        lines.append(cells)
    pairs = _pairs(a, b, keys, every, "pass@1")
    found = difference(pairs)
    what = f"does not differ significantly from {first.name}"
    if found.is_told:
        better = "better" if found.mean > 0 else "worse"
        what = f"is {better} than {first.name}"
    sentence = (
        f"**{other.name} {what}**: pass@1 {base_vs_sft.gain(pairs)} points, p {p_value(found.p)}."
    )
    return [sentence + missing(every, a, b), markdown_table(lines)]


def _verdict(found: Difference) -> str:
    if not found.is_told:
        return "not significant"
    return "B is better" if found.mean > 0 else "B is worse"


def _rerun_of_difference(
    a: Evaluation, b: Evaluation, keys: set[tuple[str, str]], name: str
) -> str:
    """Returns the rerun error of a difference of pass@1, as text; empty if it is unknown."""
    one, two = _rerun(a, keys, name), _rerun(b, keys, name)
    if one is None or two is None:
        return ""
    return f"± {sqrt(one**2 + two**2) * 100:.2f}"


def _published(subject: Subject) -> list[list[str]]:
    """Returns titles, then rows of our figures at the published budget beside the published ones of
    these problems.
    """
    e, reference = subject.evaluation, subject.reference or {}
    budget = min(
        reference.get("max_tokens", e.settings.sampling.max_tokens), e.settings.sampling.max_tokens
    )
    values = e.values if budget == e.settings.sampling.max_tokens else e.values_within(budget)
    lines = [
        [f"at {budget:,} tokens", "ours", "published", "published rerun error", "our interval"]
    ]
    for name in (*e.settings.benchmarks, TOTAL):
        for metric in accuracies(e.n):
            theirs = published.figures(reference, e, name, metric).get(e.label.kind)
            sets = by_set(values[metric], name)
            if theirs is not None and sets:
                ours, share = interval(sets), theirs / 100
                verdict = "inside" if ours.lower <= share <= ours.upper else "outside"
                title = f"{metric}, {shown(name)}{missing(name, e)}"
                most = "unknown"
                rollouts = reference.get("rollouts")
                if metric == "pass@1" and rollouts is not None:
                    most = _most(share, sum(map(len, sets)), rollouts)
                lines.append([title, estimate(sets), f"{theirs:.2f} %", most, verdict])
    return lines


def _most(share: float, problems: int, rollouts: int) -> str:
    """Returns an upper bound of a pass@1's rerun error, in points: that of problems that are all
    equally hard.
    """
    return f"at most ± {sqrt(share * (1 - share) / problems / rollouts) * 100:.2f}"


def _pairs(
    a: Evaluation, b: Evaluation, keys: set[tuple[str, str]], name: str, metric: str
) -> list[list[float]]:
    return by_set(change(only(a.values[metric], keys), only(b.values[metric], keys)), name)


def _rerun(evaluation: Evaluation, keys: set[tuple[str, str]], name: str) -> float | None:
    counts = tallies(evaluation.grades.values())
    return rerun_error(
        [count for key, count in counts.items() if key in keys and name in (TOTAL, key[0])]
    )
