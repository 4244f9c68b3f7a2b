"""Step metrics: one JSON line per step in each attempt, and the run's metrics.jsonl rebuilt from
them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from common.files import follow_jsonl, read_json, read_jsonl, write_jsonl
from common.text import duration
from trainer.run.folder import Attempt, Run


class TokenMeans(NamedTuple):
    """Means over supervised tokens, or a rank's shares of them."""

    loss: float
    """Cross entropy, in nats."""
    entropy: float
    """Entropy of the model's distribution of the next token, in nats."""
    accuracy: float
    """Share of tokens whose logit is the largest, 0 to 1."""


@dataclass(frozen=True)
class StepMetrics:
    """Metrics of one optimizer step."""

    step: int
    total: int
    """Optimizer steps of the run."""
    epoch: int
    """Epoch of the step, counted from 1."""
    loss: float | None
    """Mean loss over the supervised tokens of the global batch; None when it is not finite."""
    grad_norm: float | None
    """Gradient norm before clipping; None when it is not finite."""
    lr: float
    tokens: int
    """All tokens of the global batch, prompts included."""
    tokens_per_s: float
    tokens_per_s_per_gpu: float
    mfu: float | None
    """Causal model FLOPs (``flops.training_flops``, without recomputation) over the ranks' bf16
    peak, if known.
    """
    seconds: float
    """Step time of the slowest rank: from the wait for its rows, or from the end of the previous
    step if that was still running, to the end of the step.
    """
    mean_seconds: float
    """Step time averaged over ranks."""
    data_seconds: float
    """Seconds that the step waited for its rows, on the rank that waited longest; rows are read
    while the previous step runs.
    """
    balance: float
    """Groups' mean FLOPs over those of the slowest group summed over micro-steps, 0 to 1."""
    fill: float
    """Tokens of the step over the token budget of its micro-batches."""
    peak_memory_gb: float
    """Peak since the previous step (training, validation, saving) on the rank with the most; the
    run's peak is the largest of all steps. On GPU the memory allocated to tensors; on CPU the
    process's resident set, counted since its start where Linux does not let a process reset its
    high-water mark.
    """
    eta_s: float
    """Estimated seconds to the last step."""
    skipped: bool
    """True when the gradient was not finite and the weights were not updated."""
    val_loss: float | None = None
    """Mean loss on the held-out rows after this step."""
    rows: int | None = None
    """Rows of the global batch; older runs did not record it."""
    entropy: float | None = None
    """See ``TokenMeans``; this and the following fields are None if not finite, and in
    older runs.
    """
    token_accuracy: float | None = None
    val_entropy: float | None = None
    """On the held-out rows after this step, as ``val_loss``."""
    val_token_accuracy: float | None = None
    slow: Sequence[tuple[int, float]] = field(default_factory=list)
    """Rank and ratio of each rank whose output head took clearly longer per token in this step than
    the median of the other ranks'.
    """
    alarms: Sequence[dict[str, Any]] = field(default_factory=list)
    """The alarms that the step raised: kind, text, rank and host, rows; see ``alarm_lines``."""

    def with_held_out(self, means: TokenMeans) -> StepMetrics:
        """Returns the metrics with the means over the held-out rows."""
        loss, entropy, accuracy = map(finite, means)
        return replace(self, val_loss=loss, val_entropy=entropy, val_token_accuracy=accuracy)

    def line(self) -> str:
        """Returns the step as one line of a log."""
        parts = [
            f"step {self.step}/{self.total}",
            f"loss {_shown(self.loss, '.4f')}",
            *_signals("", self.entropy, self.token_accuracy),
            f"grad norm {_shown(self.grad_norm, '.3f')}{' (step skipped)' if self.skipped else ''}",
            f"lr {self.lr:.2e}",
            f"tokens {self.tokens:,}",
            f"tokens/s {self.tokens_per_s:,.0f}",
            *([] if self.mfu is None else [f"MFU {self.mfu:.1%}"]),
            f"balance {self.balance:.0%}",
            f"memory {self.peak_memory_gb:.1f} GB",
            *([] if self.val_loss is None else [f"val loss {self.val_loss:.4f}"]),
            *_signals("val ", self.val_entropy, self.val_token_accuracy),
            f"ETA {duration(self.eta_s)}",
        ]
        return "  ".join(parts)

    def short(self) -> str:
        """Returns a short text for a progress bar: loss and speed."""
        return f"loss {_shown(self.loss, '.4f')}  {self.tokens_per_s:,.0f} tokens/s"

    def alarm_lines(self) -> list[str]:
        """Returns the alarms that the step raised, each as one line of a log."""
        return alarm_lines(asdict(self))

    def json(self) -> str:
        """Returns the step as one line of strict JSON, newline included."""
        return json.dumps(asdict(self), allow_nan=False) + "\n"


def alarm_lines(step: Mapping[str, Any]) -> list[str]:
    """Returns the alarms of a step, from its metrics, as lines of text; empty for older runs."""
    return [
        f"ALARM ({alarm['kind']}) at step {step['step']}: {alarm['text']}"
        for alarm in step.get("alarms") or ()
    ]


def held_for(attempt: Attempt) -> str | None:
    """Returns the alarm for which the attempt stopped; None if it did not stop for an alarm."""
    return read_json(attempt.outcome).get("alarm") if attempt.outcome.exists() else None


def finite(value: float) -> float | None:
    """Returns ``value``, or None when it is not finite, because JSON has no NaN or infinity."""
    return value if math.isfinite(value) else None


def _shown(value: float | None, form: str) -> str:
    return "not finite" if value is None else format(value, form)


def _signals(rows: str, entropy: float | None, accuracy: float | None) -> list[str]:
    """Returns the parts of a line with entropy and token accuracy, if they are known."""
    parts = [] if entropy is None else [f"{rows}entropy {entropy:.4f}"]
    return parts + ([] if accuracy is None else [f"{rows}accuracy {accuracy:.1%}"])


def mean_rate(steps: Sequence[Mapping[str, Any]]) -> float:
    """Returns the tokens per second of one or more steps: all their tokens over all their time,
    without validation, saving and restarts.
    """
    return float(sum(s["tokens"] for s in steps) / sum(s["seconds"] for s in steps))


def rate_line(mean: float) -> str:
    """Returns ``mean_rate`` as text, the same in ``status``, report and card."""
    return f"mean {mean:,.0f} tokens/s"


def follow(path: Path) -> Iterator[StepMetrics | None]:
    """Yields the steps of a growing metrics file as they are written, and None whenever there is no
    new one.
    """
    for values in follow_jsonl(path):
        yield None if values is None else StepMetrics(**values)


def read(run: Run) -> list[dict[str, Any]]:
    """Returns the run's steps in order: each attempt's steps up to the checkpoint that the next
    attempt started from.

    When an attempt writes a step again because its validation was interrupted, the last line
    counts.
    """
    steps: dict[int, dict[str, Any]] = {}
    for attempt in run.attempts:
        if not attempt.provenance.exists():  # it ended before it started training
            continue
        first = read_json(attempt.provenance)["first_step"]
        steps = {step: values for step, values in steps.items() if step <= first} | of_attempt(
            attempt
        )
    return [steps[step] for step in sorted(steps)]


def of_attempt(attempt: Attempt) -> dict[int, dict[str, Any]]:
    """Returns the steps that an attempt wrote, by number; an incomplete last line is ignored."""
    if not attempt.metrics.exists():
        return {}
    return {values["step"]: values for values in read_jsonl(attempt.metrics, growing=True)}


def rebuild(run: Run) -> None:
    """Writes the run's metrics.jsonl from its attempts."""
    write_jsonl(run.metrics, read(run))
