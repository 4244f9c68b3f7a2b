"""Where a run stands, from its files alone."""

from __future__ import annotations

from typing import Any

from data_prep.files import read_json
from trainer import metrics
from trainer.loop import OUTCOME
from trainer.rundir import Run, is_complete


def status(run: Run) -> dict[str, Any]:
    """Attempts with their outcomes, the last step, checkpoints, exports and evaluations."""
    steps = metrics.read(run)
    last = steps[-1] if steps else None
    return {
        "run": str(run.root),
        "attempts": {a.name: _outcome(a) for a in run.attempts},
        "step": last["step"] if last else 0,
        "total": last["total"] if last else None,
        "loss": last["loss"] if last else None,
        "tokens_per_s": last["tokens_per_s"] if last else None,
        "eta_s": last["eta_s"] if last else None,
        "checkpoints": run.checkpoints,
        "exports": run.exports,
        "evaluations": {e.name: "done" if is_complete(e) else "incomplete" for e in run.evaluations},
        "log": next((str(a / "log") for a in reversed(run.attempts) if (a / "log").exists()), None),
    }


def table(values: dict[str, Any]) -> str:
    """``status`` as aligned lines."""
    width = max(map(len, values))
    return "\n".join(f"{key:<{width}}  {_cell(value)}" for key, value in values.items())


def _outcome(attempt: Any) -> str:
    path = attempt / OUTCOME
    return read_json(path)["status"] if path.exists() else "no outcome (running, or killed)"


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k}: {v}" for k, v in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, float):
        return f"{value:,.4g}"
    return "-" if value is None else str(value)
