"""``warmstart compare`` with groups: means over replicates, the spread between the runs, and
differences with intervals over runs and problems.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from common.errors import UserError
from common.text import markdown_table, percent
from eval.grading import replicates
from eval.grading.intervals import GAFFKE, LEVEL, Difference
from eval.grading.metrics import TOTAL
from eval.grading.replicates import Runs
from eval.results import base_vs_sft, lengths, seeds
from eval.results.base_vs_sft import EXACT, estimate, shown
from eval.results.common_problems import Problems, other_accuracies, p_value, set_names
from eval.results.compare_targets import check
from eval.results.evaluation import check_graders
from eval.results.group_targets import Group, independent, resolve, run_of, runs_of
from trainer.run.model_label import BASE

LEGEND = (
    f"Brackets of a group hold {percent(LEVEL, 0)} intervals over training seeds and problems "
    f"like these: {replicates.BANERJEE} on the variance between runs and that between problems, "
    "with run effects taken to be normal. Two seeds give wide intervals. Those of a single run "
    f"are over problems alone ({EXACT} {GAFFKE}, used when too few problems are right, wrong or "
    "changed)."
)
SPREAD = (
    "The spread between runs is the standard deviation of pass@1 over training seeds, in points, "
    "beyond what the sampling of problems and rollouts explains."
)


def compare(targets: Sequence[Sequence[str]], partial: bool, across_prompts: bool) -> str:
    """Returns Markdown: each group's means and spread, its runs, lengths, and each group against
    the first one. Published figures, which are of single runs, are not shown.

    A target is the list of its members' targets, one or more; at least one has several. Raises
    UserError as ``group_targets.resolve`` does, when the evaluations of two groups were not sampled
    or graded alike, when they share no problem, and when two groups share some of their runs.
    """
    groups = [resolve(members, partial) for members in targets]
    check_graders(e for group in groups for e in group.evaluations)
    first, *rest = groups
    for other in rest:
        check(first.members[0], other.members[0], across_prompts)
        independent(first, other)
    every = [set(e.values["pass@1"]) for group in groups for e in group.evaluations]
    keys = set.intersection(*every)
    if not keys:
        raise UserError("no problem has a rollout in each of these evaluations")
    parts = [
        markdown_table(_means(groups, keys)),
        "\n".join(f"- {line}" for line in _notes(groups, keys)),
    ]
    for group in groups:
        if not group.is_single:
            parts += [f"## Runs of {group.name}", markdown_table(_runs(group, keys))]
    members = {m.name: m.evaluation for group in groups for m in group.members}
    parts += ["## Lengths of all rollouts", lengths.table(members)]
    for other in rest:
        title = f"## A = {first.name}, B = {other.name}"
        parts += [title, *_pair(first, other, keys)]
    return "\n\n".join(parts)


def estimated(runs: Runs) -> str:
    """Returns the mean over runs and problems, in percent, with its interval; for a single run the
    interval is over problems.
    """
    if len(runs) == 1:
        return estimate(runs[0])
    found, mean = replicates.mean(runs), replicates.middle(runs)
    return f"{mean * 100:.2f} % [{found.lower * 100:.1f}, {found.upper * 100:.1f}]"


def spread(runs: Runs) -> str:
    """Returns the spread between runs, in points."""
    found = replicates.spread(runs)
    deviation, lower, upper = (100 * x for x in (found.deviation, found.lower, found.upper))
    if found.is_told:
        return f"{deviation:.2f} [{lower:.2f}, {upper:.2f}]"
    return f"not significantly above 0 ({deviation:.2f} [0, {upper:.2f}])"


def _means(groups: Sequence[Group], keys: Problems) -> Iterator[list[str]]:
    names = set_names(keys)
    others = other_accuracies(*(e for group in groups for e in group.evaluations))
    yield ["pass@1", "runs", *map(shown, names), "spread between runs", *others]
    for group in groups:
        cells = [estimated(group.values(keys, name, "pass@1")) for name in names]
        all_runs = group.values(keys, TOTAL, "pass@1")
        cells.append("unknown" if group.is_single else spread(all_runs))
        cells += [estimated(group.values(keys, TOTAL, metric)) for metric in others]
        yield [group.name, str(len(group.members)), *cells]


def _notes(groups: Sequence[Group], keys: Problems) -> Iterator[str]:
    yield f"Accuracies are over the {len(keys):,} problems that all evaluations have."
    for group in groups:
        for e in group.evaluations:
            if left := len(e.problems) - len(keys):
                yield f"{left:,} problems of {run_of(e).name}@{e.label} are left out."
        if not group.is_single and group.label == BASE:
            yield (
                f"{group.name}: the base model is one model, which no training seed changes. Its "
                "evaluations differ only in the sampling of rollouts."
            )
    if len({e.settings.tokenizer for g in groups for e in g.evaluations}) > 1:
        yield "The tokenizers differ: each model's budget counts its own tokens."
    if len({e.settings.dtype for g in groups for e in g.evaluations}) > 1:
        yield "The weights differ in precision (eval.dtype)."
    if len({group.evaluations[0].settings.prompt for group in groups}) > 1:
        yield "The prompts differ, so a difference is not the models' alone:"
        for group in groups:
            words = base_vs_sft.asked(group.evaluations[0].settings.prompt).removesuffix("; ")
            yield f"{group.name}: {words or 'the bare problem'}."
    yield LEGEND
    yield SPREAD


def _runs(group: Group, keys: Problems) -> Iterator[list[str]]:
    """Yields titles, then each member's seed and its pass@1 per set and over all problems."""
    names = set_names(keys)
    yield ["pass@1, over problems alone", "train.seed", *map(shown, names)]
    for member in group.members:
        one, e = Group(member.name, [member]), member.evaluation
        cells = [estimate(one.values(keys, name, "pass@1")[0]) for name in names]
        yield [member.name, str(seeds.seed_of(run_of(e))), *cells]


def _pair(first: Group, other: Group, keys: Problems) -> list[str]:
    """Returns the comparison as a sentence about all problems, and a table."""
    *sets, every = set_names(keys)
    rows = [(name, "pass@1") for name in (*sets, every)]
    rows += [(every, m) for m in other_accuracies(*first.evaluations, *other.evaluations)]
    lines = [["B - A, points", "problems", "difference", "p", "verdict"]]
    for name, metric in rows:
        found = _difference(first, other, keys, name, metric)
        title = shown(name) if metric == "pass@1" else f"{metric}, all"
        count = sum(name in (TOTAL, key[0]) for key in keys)
        verdict = "not significant"
        if found.is_told:
            verdict = "B is better" if found.mean > 0 else "B is worse"
        lines.append([title, f"{count:,}", _gain(found), p_value(found.p), verdict])
    found = _difference(first, other, keys, every, "pass@1")
    what = f"does not differ significantly from {first.name}"
    if found.is_told:
        what = f"is {'better' if found.mean > 0 else 'worse'} than {first.name}"
    sentence = f"**{other.name} {what}**: pass@1 {_gain(found)} points, p {p_value(found.p)}."
    return [sentence, " ".join(_scope(first, other)), markdown_table(lines)]


def _scope(first: Group, other: Group) -> Iterator[str]:
    """Yields sentences that say whether a difference's interval is over problems or over runs and
    problems.
    """
    if first.is_single and other.is_single:
        yield "Both are single runs: the interval is over problems alone."
        return
    if not independent(first, other):
        yield "Both are of the same runs: differences are paired by run and by problem."
    else:
        yield "Differences are paired by problem; the runs of A and B are independent."
    for title, group in (("A", first), ("B", other)):
        if group.is_single and group.label == BASE:
            yield f"{title} is the base model, which has no training seed."
        elif group.is_single:
            yield (
                f"{title} is one run: for it the interval is over problems alone, so it holds for "
                "this run and says nothing about other seeds of its recipe."
            )


def _difference(first: Group, other: Group, keys: Problems, name: str, metric: str) -> Difference:
    if not independent(first, other):
        before = [first.trained[root].values[metric] for root in first.trained]
        after = [other.trained[root].values[metric] for root in first.trained]
        changes = [base_vs_sft.change(a, b) for a, b in zip(before, after, strict=True)]
        return replicates.change(runs_of(changes, keys, name))
    return replicates.difference(*(g.values(keys, name, metric) for g in (first, other)))


def _gain(found: Difference) -> str:
    mark = EXACT if found.method == GAFFKE else ""
    lower, upper = found.lower * 100, found.upper * 100
    return f"{found.mean * 100:+.2f} [{lower:+.1f}, {upper:+.1f}]{mark}"
