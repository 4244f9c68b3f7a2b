"""Metrics of RL steps, from the lines that verl writes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from common.files import intact_lines
from trainer.run.rl_start import RlStart

_HELD_OUT = re.compile(r"val-core/.+/acc/mean@.+")
_TRUNCATED = re.compile(r"val-aux/.+/truncated/mean@.+")


@dataclass(frozen=True)
class RlStep:
    """One step of RL. A figure is None if verl did not report it as a number; step 0 has only
    validation figures.
    """

    step: int
    reward: float | None
    """Mean reward of the step's rollouts."""
    entropy: float | None
    tokens: float | None
    """Mean length of the rollouts."""
    longest: float | None
    """Tokens of the longest rollout."""
    seconds: float | None
    held_out: float | None
    """Accuracy on the held-out problems."""
    truncated: float | None
    """Share of the held-out problems' rollouts that the budget ended."""

    @staticmethod
    def of(line: Mapping[str, Any]) -> RlStep:
        """Returns the step of a line."""
        data = line["data"]
        return RlStep(
            step=line["step"],
            reward=data.get("critic/score/mean"),
            entropy=data.get("actor/entropy"),
            tokens=data.get("response_length/mean"),
            longest=data.get("response_length/max"),
            seconds=data.get("timing_s/step"),
            held_out=_first(data, _HELD_OUT),
            truncated=_first(data, _TRUNCATED),
        )


def read(start: RlStart, until: int | None = None) -> list[RlStep]:
    """Returns the steps of all attempts in order, up to ``until``; empty if there are none. An
    unfinished last line is ignored.
    """
    if not start.metrics.exists():
        return []
    steps = map(RlStep.of, intact_lines(start.metrics)[0].values())
    return [s for s in steps if until is None or s.step <= until]


def _first(data: Mapping[str, Any], pattern: re.Pattern[str]) -> float | None:
    found = (value for key, value in data.items() if pattern.fullmatch(key))
    return next((value for value in found if value is not None), None)
