"""RL's training in report and page."""

from pathlib import Path

from eval.report import rl_training
from eval.report.html.write import write
from tests.eval.runs import empty_run, evaluation
from tests.trainer.run.rl_runs import begun, line
from trainer.recipe import load as configs
from trainer.run import rl_metrics
from trainer.run.folder import Run
from trainer.run.rl_start import RlStart

HASH = "0123abcd"


def started(run: Run) -> RlStart:
    """A start with validations before the first step and after the last."""
    before = line(0, 0.0, held_out=0.5, truncated=0.125)
    before["data"] = {key: v for key, v in before["data"].items() if key.startswith("val-")}
    lines = [line(i, i / 20, longest=509.0 + i) for i in range(1, 12)]
    last = line(12, 0.6, held_out=0.75, truncated=0.0, longest=300.0)
    return begun(run, 7, HASH, lines=[before, *lines, last])


def test_the_table_averages_the_ends(tmp_path: Path) -> None:
    steps = rl_metrics.read(started(Run(tmp_path)))
    text = rl_training.table(steps)
    assert "| training reward, mean of 5 steps | 0.150 | 0.500 | +0.350 |" in text
    assert "| tokens per rollout, mean of 5 steps | 103 | 110 | +7 |" in text
    assert "| held-out accuracy | 50.00 % | 75.00 % | +25.00 points |" in text
    assert "| held-out rollouts that the budget ended | 12.50 % | 0.00 % | -12.50 points |" in text
    short = rl_training.table(steps[:3])
    assert "| training reward, mean of 2 steps | 0.075 | 0.075 | +0.000 |" in short


def test_it_says_how_often_the_budget_was_reached(tmp_path: Path) -> None:
    start = started(Run(tmp_path))
    text = rl_training.section(start)
    assert f"`step_7-{HASH}`: 12 of 40 steps of GRPO on 120 problems (7 of them" in text
    assert "In 9 of 12 steps a rollout reached the budget of 512 tokens. Without an" in text
    first = rl_metrics.read(start, until=2)
    assert list(rl_training.budget({"budget": 512}, first)) == [
        "In 0 of 2 steps a rollout reached the budget of 512 tokens."
    ]
    assert list(rl_training.budget({"budget": 512}, first[:1])) == []


def test_metrics_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    lines = [line(1, 0.5), line(2, 0.5)]
    for each in lines:
        each["data"]["actor/entropy"] = None
    start = begun(Run(tmp_path), 7, HASH, lines=lines)
    assert "entropy" not in rl_training.section(start)
    drawn = rl_training.curves(rl_metrics.read(start))
    assert [panel.title for panel in drawn] == ["Reward", "Tokens per rollout"]
    rl_training.picture(start.picture, rl_metrics.read(start))
    assert start.picture.read_bytes().startswith(b"\x89PNG")


def test_only_starts_that_did_a_step_are_told(tmp_path: Path) -> None:
    run = Run(tmp_path)
    begun(run, 7, "0f0f0f0f")
    assert rl_training.trained(run) == []
    start = started(run)
    assert rl_training.trained(run) == [start]


def test_its_cost_counts_every_gpu(tmp_path: Path) -> None:
    start = started(Run(tmp_path))
    cost = rl_training.cost(start, rl_metrics.read(start), on_cpu=False)
    assert cost.hours == 12 * 36 * 2 / 3600 and cost.unit == "GPU-hours"
    assert "12 steps on 2 GPUs" in cost.note


def test_the_page_has_rl(tmp_path: Path) -> None:
    run = empty_run(tmp_path / "mine")
    for label in ("base", "step_7"):
        evaluation(run, label, {"a": 4}, lambda p, k: p.answer if k else "x")
    before = write(run, configs.read(run.config)).read_text()
    assert 'id="rl"' not in before and 'href="#rl"' not in before
    started(run)
    evaluation(run, f"rl_12-{HASH}", {"a": 4}, lambda p, k: p.answer)
    page = write(run, configs.read(run.config)).read_text()
    assert '<section id="rl"' in page and '<a href="#rl">RL</a>' in page
    assert f"rl_12-{HASH} from step_7, a (4 problems)" in page and "+25.00" in page
    assert f"Reward, step_7-{HASH}" in page and "held-out accuracy, step 12: 0.750" in page
    assert f'<span class="key rl">rl_12-{HASH}</span>' in page
    assert f'"label":"rl_12-{HASH}"' in page and "regression to the mean" in page
    assert page.count('<table class="headline">') == 2
