"""The QLoRA line on a CPU, from rows to report, as a user runs it."""

import json
from pathlib import Path

import pytest

from tests.conftest import warmstart


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_tiny_line_learns_what_its_base_cannot(tmp_path: Path) -> None:
    warmstart("run", "qlora_tiny", "eval.rollouts=4", folder=tmp_path)
    run = tmp_path / "runs" / "qlora_tiny"
    (base,), (tuned,) = (run.glob(f"evals/heldout@{label}-*") for label in ("base", "step_*"))
    accuracies = [
        json.loads((folder / "metrics.json").read_text())["total"]["pass@1"]
        for folder in (base, tuned)
    ]
    assert accuracies[0] <= 0.05 and accuracies[1] >= 0.5
    assert "SFT (step_" in (run / "report.md").read_text()
