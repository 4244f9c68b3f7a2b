"""Raises alarms from the metrics of a run's steps: events that a person should look at.

Pure: fed the same steps in the same order, it raises the same alarms. So no checkpoint stores its
state; a resumed run feeds it the steps before the resume.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any, Literal, get_args

from trainer.alarms.detectors import WINDOW, Episode, Spike, Trend, spread

Kind = Literal[
    "loss",
    "grad_norm",
    "not_finite",
    "clipping",
    "entropy",
    "token_accuracy",
    "val_loss",
    "slow_rank",
]
KINDS: tuple[str, ...] = get_args(Kind)
OF_ROWS = ("loss", "grad_norm", "not_finite")
"""Kinds of alarms that single rows of the step may have caused."""
Found = tuple[str, str, int | None]
"""Kind, text and rank."""
EARLIER = 4 * WINDOW
"""Number of steps before the last ``WINDOW`` that give the usual share of clipped gradients."""
RISE = 0.5
"""Rise of the share of clipped gradients that raises an alarm: three standard errors of the
difference of two windows in which runs of five steps are alike.
"""
STRONGER = 1.5
"""Factor by which the median gradient norm must have risen too: a norm that drifts across the limit
is clipped often, but by little.
"""
VALIDATIONS = 3
"""Consecutive validations that must be above the lowest loss."""
ABOVE, LEAST_ABOVE = 5.0, 0.005
"""Thresholds for "above": a multiple of the noise scale between validations, and a share of the
loss. The lowest of 100 noisy losses is 2.5 scales below their mean, so the lowest median of three
is compared. With 5 scales, 2 of 1,000 runs of 60 validations without a trend raise an alarm.
"""
SLOW = 0.9
"""Share of the last ``WINDOW`` steps in which a slow rank was slow."""


@dataclass(frozen=True)
class Alarm:
    """An event in a run, with its step."""

    kind: str
    step: int
    text: str
    """One sentence without its full stop."""
    rank: int | None = None


class Alarms:
    """Takes the steps of a run in order."""

    def __init__(self, clip_grad: float, early: int) -> None:
        """``clip_grad`` is the norm to which gradients are clipped. Clipping, entropy and accuracy
        are not judged in the first ``early`` steps, the learning rate's warmup.
        """
        self.clip_grad, self.early = clip_grad, early
        self.spikes = {"loss": Spike(trend=True), "grad_norm": Spike(trend=False)}
        self.broken = Episode()
        self.norms: deque[float] = deque(maxlen=EARLIER + WINDOW)
        self.clipping = Episode(WINDOW)
        self.trends = {"entropy": Trend(), "token_accuracy": Trend()}
        self.validations: list[float] = []
        self.rising = Episode(VALIDATIONS)
        self.slow: deque[dict[int, float]] = deque(maxlen=WINDOW)
        self.lasting: dict[int, Episode] = {}
        self.epoch = self.ranks = 0

    def feed(self, step: Mapping[str, Any]) -> list[Alarm]:
        """Takes the metrics of the next step, named as in ``StepMetrics``; returns the alarms that
        they raise. Metrics that an older run did not record raise none.
        """
        number = step["step"]
        found: list[Found] = [*self._not_finite(step), *self._spikes(step), *self._clipping(step)]
        found += [*self._trends(step), *self._validation(step), *self._slow(step)]
        return [Alarm(kind, number, text, rank) for kind, text, rank in found]

    def _not_finite(self, step: Mapping[str, Any]) -> list[Found]:
        names = {"loss": "the loss", "grad_norm": "the gradient norm"}
        lost = [name for key, name in names.items() if step[key] is None]
        if not self.broken.begins(bool(lost)):
            return []
        return [("not_finite", f"{' and '.join(lost)} not finite", None)]

    def _spikes(self, step: Mapping[str, Any]) -> list[Found]:
        found: list[Found] = []
        for kind, spike in self.spikes.items():
            if step[kind] is None:
                continue
            if (band := spike.feed(step[kind], step.get("rows") or 1)) is not None:
                name = kind.replace("grad_norm", "gradient norm")
                text = f"{name} {step[kind]:.4g}: expected {band[0]:.4g}, at most {band[1]:.4g}"
                found.append((kind, text, None))
        return found

    def _clipping(self, step: Mapping[str, Any]) -> list[Found]:
        if step["step"] <= self.early or step["grad_norm"] is None:
            return []
        self.norms.append(step["grad_norm"])
        norms = list(self.norms)
        before, last = norms[:-WINDOW], norms[-WINDOW:]
        if len(before) < WINDOW:
            return []
        usual, share = (
            sum(norm > self.clip_grad for norm in part) / len(part) for part in (before, last)
        )
        stronger = median(last) > STRONGER * median(before)
        if not self.clipping.begins(share - usual >= RISE and stronger):
            return []
        text = (
            f"gradients clipped in {share:.0%} of the last {WINDOW} steps, but {usual:.0%} of the "
            f"{len(before)} before; their median norm is {median(last):.4g}, before "
            f"{median(before):.4g}"
        )
        return [("clipping", text, None)]

    def _trends(self, step: Mapping[str, Any]) -> list[Found]:
        if step["epoch"] != self.epoch:
            # Rows seen before are known better, from their first step on.
            self.epoch = step["epoch"]
            for trend in self.trends.values():
                trend.clear()
        entropy, accuracy = step.get("entropy"), step.get("token_accuracy")
        if step["step"] <= self.early or entropy is None or accuracy is None:
            return []
        found: list[Found] = []
        if (far := self.trends["entropy"].feed(math.log(max(entropy, 1e-12)))) < 0:
            found.append(("entropy", f"entropy falls fast, to {entropy:.4f}{_scales(far)}", None))
        least = 0.5 / step["tokens"]
        odds = math.log((accuracy + least) / (1 - accuracy + least))
        if far := self.trends["token_accuracy"].feed(odds):
            how = "rises" if far > 0 else "falls"
            text = f"token accuracy {how} fast, to {accuracy:.1%}{_scales(far)}"
            found.append(("token_accuracy", text, None))
        return found

    def _validation(self, step: Mapping[str, Any]) -> list[Found]:
        if step.get("val_loss") is None:
            return []
        self.validations.append(step["val_loss"])
        losses, last = self.validations, self.validations[-VALIDATIONS:]
        if len(losses) < 4 * VALIDATIONS:
            return []
        lowest = min(median(losses[i : i + 3]) for i in range(len(losses) - 2))
        changes = [b - a for a, b in pairwise(losses)]
        noise = spread(changes) / math.sqrt(2)
        limit = lowest + max(ABOVE * noise, LEAST_ABOVE * lowest)
        if not self.rising.begins(min(last) > limit):
            return []
        shown = ", ".join(f"{loss:.4f}" for loss in last)
        text = f"validation loss {shown}: above {limit:.4f} {VALIDATIONS} times in a row; "
        return [("val_loss", f"{text}the lowest median of three was {lowest:.4f}", None)]

    def _slow(self, step: Mapping[str, Any]) -> list[Found]:
        ranks = round(step["tokens_per_s"] / step["tokens_per_s_per_gpu"])
        if ranks != self.ranks:
            self.ranks = ranks
            self.slow.clear()
            self.lasting.clear()
        self.slow.append(dict(step.get("slow") or ()))
        counts = Counter(rank for ratios in self.slow for rank in ratios)
        found: list[Found] = []
        for rank in sorted({*counts, *self.lasting}):
            lasts = counts[rank] >= SLOW * WINDOW
            if self.lasting.setdefault(rank, Episode(WINDOW)).begins(lasts):
                times = median(ratios[rank] for ratios in self.slow if rank in ratios)
                text = (
                    f"rank {rank} was slow in {counts[rank]} of the last {len(self.slow)} steps: "
                    f"{times:.2f} times the median rank's time per token"
                )
                found.append(("slow_rank", text, rank))
        return found


def _scales(far: float) -> str:
    return f": {abs(far):.0f} times the noise away from the trend of the {WINDOW} steps before"
