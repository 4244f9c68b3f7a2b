"""What ``warmstart choose`` prints and the report shows: candidates side by side, the tests, and a
recommendation with its reasons and sources.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from omegaconf import DictConfig

from common.errors import UserError
from common.text import markdown_table, percent
from eval.choice import candidates, columns, power
from eval.choice.candidates import Candidate, Field
from eval.choice.rule import EARLIEST, HELD_OUT, C, Choice, choose
from eval.grading.metrics import TOTAL
from eval.grading.simultaneous import Pair
from eval.results import base_vs_sft
from trainer.run.folder import Run

RULE = (
    "The rule: drop what is significantly worse than the best in {criterion}; of the rest take the "
    "step with the lowest held-out loss, or the earliest one if not every step has one, and an "
    "average only if no step is left. The second half is a tie rule, not a finding. Held-out loss "
    "and pass@k at large k predicted RL's outcome better than pass@1 in Kang et al., 2025 (arXiv "
    "2510.01624; Llama 3, Mistral NeMo and Qwen3 up to 12B)."
)
TESTS = (
    "Each candidate minus the best, paired by problem. Intervals and p hold for all pairs at "
    "once, which corrects for choosing the best of several (the largest |t| of all pairs under "
    "sign flips; Romano and Wolf, 2005). The last columns say how many problems like these would "
    "make the difference significant with {power} power if the observed one is the true one, and "
    "what it costs to evaluate both candidates on the additional problems."
)
PUBLISHED = (
    "Published warning signs hold for the models they were seen in. Aphale and Liu, 2026 (arXiv "
    "2606.18487): on Qwen2.5-Coder-3B longer SFT raised pass@1 and lowered GRPO's result; the "
    "warning sign was an entropy below 0.18 nats. On DeepSeek-Coder-6.7B the ranking did not "
    "change. If p is below 1 − 2^(−1/8) = 0.083, most groups of 8 are all wrong. Kopiczko et al., "
    "2026 (arXiv 2602.11149; Olmo3-7B, Qwen3-4B and 8B): on repeated rows accuracy grew until "
    "training token accuracy was near 100 %, although the held-out loss rose. Here {here}."
)
ONE_ROLLOUT = (
    "There is one rollout per problem, so pass@1 is all that can be compared: evaluate with "
    "eval.rollouts=16 for pass@16."
)
INTERPOLATED = (
    "Averages and steps moved towards the base model had a higher pass@k in arXiv 2504.10478 and "
    "made overtrained checkpoints better starts in arXiv 2606.09932: `warmstart export {run} "
    "{step} --toward base=0.3` makes one to evaluate."
)


def text(run: Run, config: DictConfig) -> str:
    """Returns the comparison and the recommendation as Markdown.

    Raises UserError, naming the commands, when no checkpoint or average has a complete evaluation.
    """
    field = candidates.find(run, config)
    if not field.candidates:
        raise UserError(_none(run, field))
    return _told(run, field)


def section(run: Run, config: DictConfig) -> str | None:
    """Returns ``text`` for the report; None if no checkpoint or average has a complete
    evaluation.
    """
    field = candidates.find(run, config)
    return _told(run, field) if field.candidates else None


def reason(choice: Choice[C]) -> str:
    """Returns why the chosen candidate was chosen, as part of a sentence."""
    measure, others = criterion(choice), [c for c in choice.tied if c is not choice.chosen]
    if not others:
        return f"every other candidate is significantly worse in {measure}"
    names = _names(others)
    return (
        f"it does not differ significantly from {names} in {measure}, and the tie rule takes the "
        f"{_by(choice)}"
    )


def start(choice: Choice[Candidate]) -> str:
    """Returns which step RL starts from and why, as a line; the choice must have one."""
    assert choice.start is not None
    if choice.start is choice.chosen:
        return f"RL starts from {choice.start.label}, as {reason(choice)}"
    return (
        f"RL starts from {choice.start.label}, the rule's choice among the steps of SFT: it cannot "
        f"start from {choice.chosen.label}, which comes first because {reason(choice)}"
    )


def recommendation(choice: Choice[C]) -> str:
    """Returns which candidate is recommended, or which do not differ significantly, in bold."""
    chosen = choice.chosen.label
    if len(choice.tied) == 1:
        return f"**{chosen} is recommended**: {reason(choice)}."
    return (
        f"**These do not differ significantly in {criterion(choice)}: {_names(choice.tied)}.** By "
        f"the tie rule, {_by(choice)}, **{chosen}** is recommended."
    )


def gain(pair: Pair) -> str:
    """Returns a pair's difference in points, with its interval."""
    if not pair.error:
        return f"{pair.mean * 100:+.2f} (no spread)"
    return f"{pair.mean * 100:+.2f} [{pair.lower * 100:+.1f}, {pair.upper * 100:+.1f}]"


def criterion(choice: Choice[C]) -> str:
    """Returns the name of the accuracy that the tests compare."""
    return f"pass@{choice.best.n}"


def _none(run: Run, field: Field) -> str:
    start = (
        f"{run.root} has no complete evaluation of a checkpoint or average, so none can be chosen"
    )
    if not field.left_out:
        return f"{start}: warmstart train and warmstart eval {run.root} make one"
    return f"{start}: {' '.join(field.left_out)}"


def _told(run: Run, field: Field) -> str:
    left = "\n".join(f"- {line}" for line in field.left_out)
    first, *others = field.candidates
    if not others:
        more = left or (
            "- The run has no other checkpoint, export or average: train.keep_last and "
            "train.keep_every keep more checkpoints, and `warmstart export --average` makes "
            "averages."
        )
        return f"Only {first.label} is evaluated, so there is nothing to choose from.\n\n{more}"
    choice = choose(field.candidates)
    parts = [
        recommendation(choice),
        columns.table(field.candidates),
        f"{columns.LEGEND} Protocol: {base_vs_sft.protocol(first.evaluation)}.",
        markdown_table(_tests(choice)),
        TESTS.format(power=percent(power.POWER, 0)),
        "\n".join(f"- {line}" for line in _reasons(run, choice)),
    ]
    return "\n\n".join([*parts, f"Left out:\n\n{left}"] if left else parts)


def _tests(choice: Choice[Candidate]) -> Iterator[list[str]]:
    yield [
        f"{criterion(choice)}, points",
        f"minus {choice.best.label}",
        "p",
        "verdict",
        "problems needed",
        "cost",
    ]
    for c in choice.candidates:
        if c is choice.best:
            continue
        pair, needed, cost = choice.behind(c), "", ""
        if not pair.is_told:
            count = power.problems_needed(choice, c)
            needed = "no number" if not pair.mean else "unknown" if count is None else f"{count:,}"
            cost = "" if count is None else power.cost(choice, c, count)
        verdict = "worse" if pair.is_told else "not significant"
        yield [str(c.label), gain(pair), f"{pair.p:.4f}", verdict, needed, cost]


def _reasons(run: Run, choice: Choice[Candidate]) -> Iterator[str]:
    """Yields reasons for and against the choice, published findings, and the next command."""
    yield RULE.format(criterion=criterion(choice))
    if choice.best.n == 1:
        yield ONE_ROLLOUT
    if len(choice.tied) > 1:
        yield from _other_signs(choice)
    yield PUBLISHED.format(here=_here(choice.chosen))
    if all(c.label.kind == "sft" for c in choice.candidates):
        yield INTERPOLATED.format(run=run.root, step=choice.chosen.label.word)
    start = choice.start
    if start is None:
        yield "RL starts from a step of SFT, and none was evaluated."
    elif start is choice.chosen:
        yield f"Next: `warmstart rl {run.root} {start.label.word}`."
    else:
        yield (
            f"RL starts from a step of SFT; the rule's choice among the steps is {start.label}: "
            f"`warmstart rl {run.root} {start.label.word}`."
        )


def _other_signs(choice: Choice[Candidate]) -> Iterator[str]:
    """Yields the tied candidate that each other measure of a good start would select."""
    signs: dict[str, list[tuple[float, Candidate]]] = {"p(1 − p)": [], "entropy of rollouts": []}
    for c in choice.tied:
        if c.evaluation.n > 1:
            teach = c.evaluation.signals["teach"].values()
            signs["p(1 − p)"].append((sum(teach) / len(teach), c))
        if found := columns.surprisal(c):
            signs["entropy of rollouts"].append((found.mean, c))
    for name, values in signs.items():
        if len(values) == len(choice.tied):
            told = ", ".join(f"{c.label} {value:.3f}" for value, c in values)
            most = max(values, key=lambda v: v[0])[1]
            verb = "agrees" if most is choice.chosen else f"would take {most.label}"
            yield f"The highest {name} among these {verb} ({told})."


def _here(chosen: Candidate) -> str:
    figure = chosen.evaluation.figures[TOTAL]["pass@1"]
    parts = [f"{chosen.label} has pass@1 {figure:.3f}"]
    for key in ("entropy", "token_accuracy"):
        parts.append(f"{columns.TRAINING[key]} {columns.trained([chosen], key)}")
    return ", ".join(parts)


def _by(choice: Choice[C]) -> str:
    if choice.decided_by == HELD_OUT:
        return f"{HELD_OUT} ({choice.chosen.held_out:.4f})"
    if choice.decided_by == EARLIEST:
        return f"{EARLIEST}, as not every step has a held-out loss"
    return f"{choice.decided_by}, as only averages are left"


def _names(some: Sequence[C]) -> str:
    return ", ".join(str(c.label) for c in some)
