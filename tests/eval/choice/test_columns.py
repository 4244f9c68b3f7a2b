"""The columns of candidates: every figure is that of the report, and those of rollouts have
intervals.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from eval.choice import candidates, columns
from eval.generation import rollout_files
from tests.eval.choice.conftest import Evaluate, solves, trained
from trainer.recipe import load as configs
from trainer.run.folder import Run


def column(run: Run, label: str) -> dict[str, str]:
    found = candidates.find(run, configs.read(run.config)).candidates
    titles, _, *lines = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in columns.table(found).splitlines()
    )
    return {line[0]: line[titles.index(label)] for line in lines}


def with_logprobs(folder: Path, values: dict[str, list[float]]) -> None:
    """Gives the rollouts of each problem the mean log-probabilities."""
    path = folder / rollout_files.ROLLOUTS
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line["mean_logprob"] = values[line["key"][1]][line["key"][2]]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_rates_of_rollouts_and_what_training_measured(run: Run, evaluated: Evaluate) -> None:
    trained(run, {10: 0.5})
    evaluated("step_10", lambda p, k: [p.answer, "x", None, None][k], {"amc2023": 40})
    evaluated("step_20", lambda p, k: p.answer if k < 2 else None, {"amc2023": 40})
    evaluated("avg_10_20", solves(range(20)), {"amc2023": 40})
    cells = column(run, "step_10")
    assert cells["pass@1"].startswith("25.00 % [") and cells["pass@4"].startswith("100.00 % [")
    assert cells["problems solved sometimes"].startswith("100.00 % [")
    assert cells["p(1 − p)"].startswith("0.250 [")  # 4/3 of 1/4 3/4
    assert cells["hit the budget"].startswith("50.00 % [")
    assert cells["no answer in the required form"].startswith("50.00 % [")
    assert cells["−log p, nats per token"] == "not recorded"
    assert cells["held-out loss"] == "0.5000" and cells["held-out entropy"] == "0.3000"
    assert cells["held-out token accuracy"] == "20.00 % (training batch)"
    assert column(run, "step_20")["held-out loss"] == "0.0500 (training batch)"
    assert column(run, "avg_10_20")["held-out loss"] == "–"


def test_the_surprisal_is_over_tokens_and_its_interval_covers(
    run: Run, evaluated: Evaluate
) -> None:
    """For tokens alike it is the mean over problems, with Student's interval."""
    means = np.random.default_rng(0).uniform(0.2, 0.6, 40)
    folder = evaluated("step_10", solves(range(9)), {"amc2023": 40}, tokens=lambda p, k: 100)
    with_logprobs(folder, {f"amc2023/{i}": [-m] * 4 for i, m in enumerate(means)})
    (only,) = candidates.find(run, configs.read(run.config)).candidates
    found = columns.surprisal(only)
    bounds = stats.ttest_1samp(means, 0).confidence_interval(0.95)
    assert found is not None and found.mean == pytest.approx(means.mean())
    assert (found.lower, found.upper) == pytest.approx((bounds.low, bounds.high))
    longer = evaluated(
        "step_20",
        solves(range(9)),
        {"amc2023": 40},
        tokens=lambda p, k: 900 if p == "amc2023/0" else 1,
    )
    with_logprobs(longer, {f"amc2023/{i}": [-5.0 if i else -1.0] * 4 for i in range(40)})
    weighted = columns.surprisal(candidates.find(run, configs.read(run.config)).candidates[1])
    assert weighted is not None
    assert weighted.mean == pytest.approx((900 * 1.0 + 39 * 5.0) / 939)
    assert column(run, "step_10")["−log p, nats per token"].startswith(f"{found.mean:.3f} [")


def test_one_rollout_has_no_groups(run: Run, evaluated: Evaluate) -> None:
    evaluated("step_10", solves(range(9)), rollouts=1, temperature=0)
    assert not {"problems solved sometimes", "p(1 − p)"} & column(run, "step_10").keys()
