"""What ``warmstart choose RUN,RUN,RUN`` prints: candidates of replicates side by side as means over
the runs, tests over runs and problems, a recommendation, and the step that each starts RL from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from common.errors import UserError
from common.text import markdown_table
from eval.choice import columns, page, replicated
from eval.choice.replicated import ReplicatedCandidate, ReplicatedField
from eval.choice.rule import Choice, choose
from eval.grading import replicates
from eval.results import base_vs_sft
from trainer.run.folder import Run

LEGEND = (
    f"Means over the runs, with intervals over training seeds and problems "
    f"({replicates.BANERJEE}; two seeds give wide intervals); {columns.MEANINGS}"
)
TESTS = (
    "Each candidate minus the best, paired by run and by problem. Intervals and p hold over runs "
    f"and problems ({replicates.BANERJEE}) and for all pairs at once (Bonferroni's correction), "
    "which corrects for choosing the best of several."
)
ALONE = (
    "A run's own evaluations may favour another step; where it is named here, that is one run's "
    "figure and not the recipe's."
)


def text(runs: Sequence[Run]) -> str:
    """Returns the comparison and the recommendation of two or more replicates as Markdown.

    Raises UserError as ``replicated.find`` does, and when no model is evaluated in every run.
    """
    field = replicated.find(runs)
    left = "\n".join(f"- {line}" for line in field.left_out)
    if not field.candidates:
        names = ", ".join(run.name for run in runs)
        raise UserError(f"no checkpoint or average is evaluated in all of {names}:\n{left}")
    first, *others = field.candidates
    head = f"Candidates of {len(runs)} runs: {', '.join(run.name for run in runs)}."
    if not others:
        only = f"Only {first.label} is evaluated in every run, so there is nothing to choose from."
        return "\n\n".join([head, only, left] if left else [head, only])
    choice = choose(field.candidates, replicates.all_pairs([c.runs for c in field.candidates]))
    protocol = base_vs_sft.protocol(first.members[0].evaluation)
    parts = [
        head,
        page.recommendation(choice),
        columns.table_of_runs([c.members for c in field.candidates]),
        f"{LEGEND} Protocol: {protocol}.",
        markdown_table(_tests(choice)),
        TESTS,
        "\n".join(f"- {line}" for line in _reasons(field, choice)),
    ]
    return "\n\n".join([*parts, f"Left out:\n\n{left}"] if left else parts)


def _tests(choice: Choice[ReplicatedCandidate]) -> Iterator[list[str]]:
    yield [f"{page.criterion(choice)}, points", f"minus {choice.best.label}", "p", "verdict"]
    for c in choice.candidates:
        if c is not choice.best:
            pair = choice.behind(c)
            verdict = "worse" if pair.is_told else "not significant"
            yield [str(c.label), page.gain(pair), f"{pair.p:.4f}", verdict]


def _reasons(field: ReplicatedField, choice: Choice[ReplicatedCandidate]) -> Iterator[str]:
    """Yields the rule, and for each run what to start RL from."""
    yield page.RULE.format(criterion=page.criterion(choice))
    if choice.best.n == 1:
        yield page.ONE_ROLLOUT
    if choice.start is None:
        yield "RL starts from a step of SFT, and none was evaluated in every run."
        return
    label = choice.start.label
    if choice.start is not choice.chosen:
        yield f"RL starts from a step of SFT; the rule's choice among the steps is {label}."
    named = False
    for run in field.runs:
        alone, labels = "", {c.label for c in field.candidates}
        own = [c for c in field.own[str(run.root)].candidates if c.label in labels]
        start = choose(own).start
        if start is not None and start.label != label:
            alone, named = f" (its own evaluations alone would take {start.label})", True
        yield f"{run.name} starts RL from {label}: `warmstart rl {run.root} {label.word}`{alone}."
    if named:
        yield ALONE
