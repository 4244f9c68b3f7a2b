"""RL's training in the report: a start's problems, its steps, its reward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from common.plots import COLOURS, Line, panels
from common.text import markdown_table
from trainer.run import rl_metrics, rl_models
from trainer.run.device_hours import CPU, CUDA, Cost
from trainer.run.folder import Run
from trainer.run.rl_metrics import RlStep
from trainer.run.rl_start import RlStart

AVERAGED = 5
"""Steps at either end that the table averages."""
REGRESSION = (
    "The problems were chosen because some rollouts were right and some wrong. Such a choice is "
    "partly luck, so their accuracy moves towards the mean of all problems without any training "
    "(regression to the mean). Compare the reward with that of RL's first steps, not with the "
    "accuracy that chose the problems."
)
Value = Callable[[RlStep], float | None]
FIGURES: tuple[tuple[str, Value, str], ...] = (
    ("training reward", lambda s: s.reward, ".3f"),
    ("entropy (nats per token)", lambda s: s.entropy, ".3f"),
    ("tokens per rollout", lambda s: s.tokens, ",.0f"),
    ("longest rollout, tokens", lambda s: s.longest, ",.0f"),
)
VALIDATED: tuple[tuple[str, Value, str], ...] = (
    ("held-out accuracy", lambda s: s.held_out, ".1%"),
    ("held-out rollouts that the budget ended", lambda s: s.truncated, ".1%"),
)


def trained(run: Run) -> list[RlStart]:
    """Returns the run's starts that have done a step, oldest first."""
    return [start for start in RlStart.find(run.rl) if rl_metrics.read(start)]


def section(start: RlStart) -> str:
    """Returns what one start's training did, in Markdown without heading and picture."""
    facts, steps = rl_models.facts(start), rl_metrics.read(start)
    return "\n\n".join([_summary(facts, steps), table(steps), *budget(facts, steps)])


def table(steps: Sequence[RlStep]) -> str:
    """Returns a table of first and last values: means over ``AVERAGED`` steps, and of validations
    single values.
    """
    lines = [["", "first", "last", "change"]]
    for title, value, form in FIGURES:
        found = list(_values(steps, value).values())
        if found:
            ends = fmean(found[:AVERAGED]), fmean(found[-AVERAGED:])
            lines.append(
                [f"{title}, mean of {min(AVERAGED, len(found))} steps", *_ends(ends, form)]
            )
    for title, value, form in VALIDATED:
        found = list(_values(steps, value).values())
        if found:
            lines.append([title, *_ends((found[0], found[-1]), form)])
    return markdown_table(lines)


def budget(facts: dict[str, Any], steps: Sequence[RlStep]) -> Iterator[str]:
    """Yields how often the longest rollout of a step had all tokens that RL gives."""
    longest = _values(steps, lambda s: s.longest)
    if longest:
        reached = sum(value >= facts["budget"] for value in longest.values())
        text = f"In {reached:,} of {len(longest):,} steps a rollout reached the budget of "
        text += f"{facts['budget']:,} tokens."
        if reached:
            text += (
                " Without an answer by then it gets no reward: raise data.max_response_length if "
                "many rollouts do."
            )
        yield text


def picture(path: Path, steps: Sequence[RlStep]) -> None:
    """Draws reward and held-out accuracy, entropy, and length of the rollouts by step."""
    panels(path, {title: lines for title, lines in curves(steps).items() if lines})


def curves(steps: Sequence[RlStep]) -> dict[str, list[Line]]:
    """Returns the lines of the picture's panels that have values, by the panel's title."""
    drawn = {
        "Reward": [
            ("training reward", _values(steps, lambda s: s.reward), COLOURS[0], False),
            ("held-out accuracy", _values(steps, lambda s: s.held_out), COLOURS[2], True),
        ],
        "Entropy (nats per token)": [
            ("entropy", _values(steps, lambda s: s.entropy), COLOURS[0], False)
        ],
        "Tokens per rollout": [
            ("mean", _values(steps, lambda s: s.tokens), COLOURS[0], False),
            ("longest", _values(steps, lambda s: s.longest), COLOURS[1], False),
        ],
    }
    return {title: [line for line in lines if line[1]] for title, lines in drawn.items()}


def cost(start: RlStart, steps: Sequence[RlStep], on_cpu: bool) -> Cost:
    """Returns the device-hours of these steps."""
    seconds, gpus = _values(steps, lambda s: s.seconds), rl_models.facts(start)["gpus"]
    kind = ("rank" if on_cpu else "GPU") + ("" if gpus == 1 else "s")
    note = f"{len(seconds):,} steps on {gpus} {kind}, rollouts included; without start-up"
    hours = sum(seconds.values()) * gpus / 3600
    return Cost(f"RL ({start.root.name})", hours, CPU if on_cpu else CUDA, note)


def _summary(facts: dict[str, Any], steps: Sequence[RlStep]) -> str:
    return (
        f"`{facts['start']}`: {steps[-1].step:,} of {facts['total']:,} steps of GRPO on "
        f"{facts['problems']:,} problems ({facts['in_sft']:,} of them also rows of SFT), "
        f"{facts['rollouts']} rollouts of each of {facts['prompts']} problems per step, learning "
        f"rate {facts['lr']:g}."
    )


def _values(steps: Sequence[RlStep], value: Value) -> dict[int, float]:
    found = {step.step: value(step) for step in steps}
    return {number: figure for number, figure in found.items() if figure is not None}


def _ends(ends: tuple[float, float], form: str) -> list[str]:
    first, last = ends
    change = last - first
    told = f"{change * 100:+z.1f} points" if form.endswith("%") else format(change, f"+z{form}")
    return [format(first, form), format(last, form), told]
