"""The report's section on RL training: a start's problems, steps and reward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from common.plots import Line, Panel, panels
from common.text import markdown_table, percent
from trainer.run import rl_metrics, rl_models
from trainer.run.device_hours import CPU, CUDA, Cost
from trainer.run.folder import Run
from trainer.run.rl_metrics import RlStep
from trainer.run.rl_start import RlStart

AVERAGED = 5
"""Number of steps at each end that the table averages."""
REGRESSION = (
    "The problems were chosen because some rollouts were right and some wrong. Such a choice is "
    "partly luck, so their accuracy moves towards the mean of all problems without any training "
    "(regression to the mean). Compare the reward with that of RL's first steps, not with the "
    "accuracy that chose the problems."
)
Value = Callable[[RlStep], float | None]
FIGURES: tuple[tuple[str, Value, str], ...] = (
    ("training reward", lambda s: s.reward, ".3f"),
    ("entropy (nats per token)", lambda s: s.entropy, ".4f"),
    ("tokens per rollout", lambda s: s.tokens, ",.0f"),
    ("longest rollout, tokens", lambda s: s.longest, ",.0f"),
)
VALIDATED: tuple[tuple[str, Value], ...] = (
    ("held-out accuracy", lambda s: s.held_out),
    ("held-out rollouts that the budget ended", lambda s: s.truncated),
)
"""Shares, in 0..1."""


def trained(run: Run) -> list[RlStart]:
    """Returns the run's starts that have finished a step, oldest first."""
    return [start for start in RlStart.find(run.rl) if rl_metrics.read(start)]


def section(start: RlStart) -> str:
    """Returns the section on one start's training, in Markdown without heading and picture."""
    facts, steps = rl_models.facts(start), rl_metrics.read(start)
    return "\n\n".join([_summary(facts, steps), table(steps), *budget(facts, steps)])


def table(steps: Sequence[RlStep]) -> str:
    """Returns a table of first and last values: means over ``AVERAGED`` steps, or single values of
    validations.
    """
    lines = [["", "first", "last", "change"]]
    for title, value, form in FIGURES:
        found = list(_values(steps, value).values())
        if found:
            ends = fmean(found[:AVERAGED]), fmean(found[-AVERAGED:])
            cells = [*(format(end, form) for end in ends), format(ends[1] - ends[0], f"+z{form}")]
            lines.append([f"{title}, mean of {min(AVERAGED, len(found))} steps", *cells])
    for title, value in VALIDATED:
        found = list(_values(steps, value).values())
        if found:
            change = (found[-1] - found[0]) * 100
            shares = [percent(found[0]), percent(found[-1])]
            lines.append([title, *shares, f"{change:+z.2f} points"])
    return markdown_table(lines)


def budget(facts: dict[str, Any], steps: Sequence[RlStep]) -> Iterator[str]:
    """Yields a sentence on how many steps had a rollout that reached RL's budget."""
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
    panels(path, curves(steps))


def curves(steps: Sequence[RlStep]) -> list[Panel]:
    """Returns the picture's panels that have values."""
    drawn: dict[tuple[str, int], list[Line]] = {
        ("Reward", 3): [
            Line("training reward", _values(steps, lambda s: s.reward), "training"),
            Line("held-out accuracy", _values(steps, lambda s: s.held_out), "held-out", dots=True),
        ],
        ("Entropy (nats per token)", 4): [
            Line("entropy", _values(steps, lambda s: s.entropy), "training")
        ],
        ("Tokens per rollout", 0): [
            Line("mean", _values(steps, lambda s: s.tokens), "training"),
            Line("longest", _values(steps, lambda s: s.longest), "rl"),
        ],
    }
    there = {key: [line for line in lines if line.values] for key, lines in drawn.items()}
    return [Panel(title, lines, digits) for (title, digits), lines in there.items() if lines]


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
