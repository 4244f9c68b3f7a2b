"""Training's figures as the report and the card print them: loss milestones, rates, trained
weights.
"""

from typing import Any

import pytest

from eval.report import run_facts
from trainer.recipe import load as configs

EPOCH, TOTAL = 300, 600


def steps(last: int = TOTAL, **changes: Any) -> list[dict[str, Any]]:
    """Steps of two epochs; step n has loss 1000 - n, so that a mean tells its steps."""
    common = {"total": TOTAL, "tokens": 1_000, "seconds": 2.0, "rows": 16, "balance": 1.0}
    common |= {"val_loss": None, "skipped": False} | changes
    return [
        common | {"step": n, "loss": 1000.0 - n, "epoch": 1 + (n > EPOCH)}
        for n in range(1, last + 1)
    ]


def table(text: str) -> dict[str, list[str]]:
    """First cell -> the others of each line below the title."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    return {first: rest for first, *rest in lines[2:]}


def test_a_milestone_is_the_mean_of_the_last_fifty_steps_beside_the_published_one() -> None:
    reference = {"loss": {20: 0.695, 100: 0.5, 300: 0.304, 700: 0.2}, "mean_loss": 0.291}
    assert table(run_facts.milestones(steps(), reference)) == {
        "20": ["", "989.5000", "0.695"],
        "100": ["", "924.5000", "0.500"],
        "300": ["end of epoch 1", "724.5000", "0.304"],
        "600": ["end of epoch 2", "424.5000", ""],
        "700": ["", "not reached", "0.200"],
        "all": ["mean over the run", "699.5000", "0.291"],
    }


def test_without_published_losses_they_are_at_round_steps_and_the_ends_of_epochs() -> None:
    found = table(run_facts.milestones(steps(450), None))
    assert list(found) == ["50", "100", "150", "200", "250", "300", "350", "400", "450", "all"]
    assert found["300"][0] == "end of epoch 1" and found["450"][0] == ""  # stopped, not ended
    assert all(len(rest) == 2 for rest in found.values())


def test_a_loss_that_is_not_finite_is_left_out_of_the_means() -> None:
    made = steps(100)
    made[99]["loss"] = None
    assert table(run_facts.milestones(made, None))["100"][1] == "925.0000"
    assert table(run_facts.milestones([made[99]], None))["all"][1] == "not finite"


def test_rows_per_second_are_printed_where_every_step_recorded_them() -> None:
    assert "500 tokens/s, 8.00 rows/s, balance" in run_facts.training(steps())
    old = steps()
    del old[0]["rows"]
    assert "500 tokens/s, balance" in run_facts.training(old)


@pytest.mark.parametrize(
    ("recipe", "overrides", "share"),
    [
        ("qlora_gsm8k_4b", [], "66.1M of 4.09B (1.62%), the base included"),
        ("sft_4b", [], "all 4.02B"),
        ("sft_4b", ["model.path=someone/unknown"], None),
    ],
)
def test_the_trained_weights_and_their_share(
    recipe: str, overrides: list[str], share: str | None
) -> None:
    assert run_facts.trained_share(configs.load(recipe, overrides)) == share
