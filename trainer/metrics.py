"""The step metrics: one JSON line a step in each attempt, and the run's own view rebuilt from them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_prep.files import write_jsonl
from trainer.rundir import Run


@dataclass(frozen=True)
class StepMetrics:
    """One optimizer step."""

    step: int
    total: int
    epoch: int
    loss: float
    """Mean over the supervised tokens of the global batch."""
    grad_norm: float
    """Before clipping."""
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
    """Of the fullest rank: device memory allocated so far; on CPU the resident set."""
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
            f"loss {self.loss:.4f}",
            f"grad norm {self.grad_norm:.3f}{' (not finite: step skipped)' if self.skipped else ''}",
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
        """The step as one JSON line, newline included."""
        return json.dumps(asdict(self)) + "\n"


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
    """The run's steps in order, from its attempts' files, the last attempt winning each step."""
    steps: dict[int, dict[str, Any]] = {}
    for attempt in run.attempts:
        path = attempt / "metrics.jsonl"
        if not path.exists():
            continue
        lines = [
            json.loads(line) for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line[-1] == "\n"
        ]
        if lines:
            steps = {step: values for step, values in steps.items() if step < lines[0]["step"]}
        steps |= {line["step"]: line for line in lines}
    return [steps[step] for step in sorted(steps)]


def rebuild(run: Run) -> None:
    """Writes the run's metrics.jsonl from its attempts."""
    write_jsonl(run.metrics, read(run))
