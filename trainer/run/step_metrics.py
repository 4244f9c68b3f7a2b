"""The step metrics: one JSON line a step in each attempt, and the run's own view rebuilt from them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.files import read_json, write_jsonl
from trainer.run.folder import PROVENANCE, Run


@dataclass(frozen=True)
class StepMetrics:
    """One optimizer step."""

    step: int
    total: int
    epoch: int
    loss: float | None
    """Mean over the supervised tokens of the global batch; None when it is not finite."""
    grad_norm: float | None
    """Before clipping; None when it is not finite."""
    lr: float
    tokens: int
    """All tokens of the global batch, prompts included."""
    tokens_per_s: float
    tokens_per_s_per_gpu: float
    mfu: float | None
    """Causal model FLOPs (``flops.training_flops``, nothing recomputed) over the ranks' bf16 peak, if known."""
    seconds: float
    """Of the slowest rank, from planning the step to its end, data included."""
    mean_seconds: float
    data_seconds: float
    """Of the slowest rank: reading its rows."""
    balance: float
    """Mean over groups of the step's FLOPs, over what the lockstep of micro-steps takes."""
    fill: float
    """Tokens over the token budget of the micro-batches that were run."""
    peak_memory_gb: float
    """Of the fullest rank, since the step before: training, validation and saving; the run's peak is the largest of all
    steps. Device memory that tensors took; on CPU the process's resident set, since its start where Linux does not let
    a process set its high-water mark back."""
    eta_s: float
    skipped: bool
    """A gradient was not finite and the weights stayed as they were."""
    val_loss: float | None = None
    """On the held-out rows, after this step."""

    def line(self) -> str:
        """The step as one line of a log."""
        minutes, seconds = divmod(round(self.eta_s), 60)
        parts = [
            f"step {self.step}/{self.total}",
            f"loss {_shown(self.loss, '.4f')}",
            f"grad norm {_shown(self.grad_norm, '.3f')}{' (step skipped)' if self.skipped else ''}",
            f"lr {self.lr:.2e}",
            f"tokens {self.tokens:,}",
            f"tokens/s {self.tokens_per_s:,.0f}",
            *([] if self.mfu is None else [f"MFU {self.mfu:.1%}"]),
            f"balance {self.balance:.0%}",
            f"memory {self.peak_memory_gb:.1f} GB",
            *([] if self.val_loss is None else [f"val loss {self.val_loss:.4f}"]),
            f"ETA {minutes // 60}:{minutes % 60:02}:{seconds:02}",
        ]
        return "  ".join(parts)

    def json(self) -> str:
        """The step as one line of strict JSON, newline included."""
        return json.dumps(asdict(self), allow_nan=False) + "\n"


def finite(value: float) -> float | None:
    """``value``, or None, which JSON has, when it is not finite."""
    return value if math.isfinite(value) else None


def _shown(value: float | None, form: str) -> str:
    return "not finite" if value is None else format(value, form)


def follow(path: Path) -> Iterator[StepMetrics | None]:
    """Yields the steps of a growing metrics file as they are written, None whenever there is no new one."""
    position = 0
    while True:
        if path.exists():
            with path.open("rb") as f:
                f.seek(position)
                for line in iter(f.readline, b""):
                    if not line.endswith(b"\n"):
                        break
                    position += len(line)
                    yield StepMetrics(**json.loads(line))
        yield None


def read(run: Run) -> list[dict[str, Any]]:
    """The run's steps in order: of each attempt's steps, those up to the checkpoint that the next one started from.

    A step that an attempt writes again, because its validation was cut short, is taken as written last.
    """
    steps: dict[int, dict[str, Any]] = {}
    for attempt in run.attempts:
        made = attempt / PROVENANCE
        if not made.exists():  # it was ended before it began
            continue
        first = read_json(made)["first_step"]
        steps = {step: values for step, values in steps.items() if step <= first} | of_attempt(attempt)
    return [steps[step] for step in sorted(steps)]


def of_attempt(attempt: Path) -> dict[int, dict[str, Any]]:
    """The steps that an attempt wrote, a line that was cut short left out."""
    path = attempt / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    return {values["step"]: values for values in (json.loads(line) for line in lines if line[-1] == "\n")}


def rebuild(run: Run) -> None:
    """Writes the run's metrics.jsonl from its attempts."""
    write_jsonl(run.metrics, read(run))
