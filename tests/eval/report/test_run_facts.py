"""Training's figures as the report and the card print them: loss milestones, rates, trained
weights.
"""

from pathlib import Path
from typing import Any

import pytest

from eval.report import run_facts, training_curves
from eval.report.html.markdown import html
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


def test_of_many_epochs_at_most_ten_ends_are_listed() -> None:
    made = [s | {"epoch": -(-s["step"] // 2)} for s in steps(46)]
    ends = [cells[0] for cells in table(run_facts.milestones(made, None)).values() if cells[0]]
    assert ends == [f"end of epoch {n}" for n in range(3, 24, 3)] + ["mean over the run"]


def test_a_loss_that_is_not_finite_is_left_out_of_the_means() -> None:
    made = steps(100)
    made[99]["loss"] = None
    assert table(run_facts.milestones(made, None))["100"][1] == "925.0000"
    assert table(run_facts.milestones([made[99]], None))["all"][1] == "not finite"


def test_entropy_and_accuracy_stand_beside_the_loss_where_they_were_recorded() -> None:
    made = steps(100)
    for step in made:
        step |= {"entropy": step["step"] / 10, "token_accuracy": step["step"] / 200}
    made[99]["entropy"] = None  # not finite
    made[0] |= {"entropy": 5.5, "token_accuracy": 0.004}
    made[98] |= {"val_loss": 0.5, "val_entropy": 0.25, "val_token_accuracy": 0.81}
    reference = {"loss": {20: 0.695}}
    assert run_facts.milestones(made, reference).splitlines()[0] == (
        "| step |  | loss | published | entropy | token accuracy |"
    )
    found = table(run_facts.milestones(made, reference))
    assert found["100"][1:] == ["924.5000", "", "7.5000", "37.75 %"]
    ended = (
        "entropy 5.5000 and token accuracy 0.40 % at the first step, 0.2500 and 81.00 % on the held"
    )
    assert ended in run_facts.training(made)
    assert run_facts.training(made[:99]).endswith(
        "at the first step, 9.9000 and 49.50 % at the last, 0.2500 and 81.00 % on the held-out "
        "rows."
    )
    assert "entropy" not in run_facts.training(steps()) + run_facts.milestones(steps(), reference)


def test_the_picture_has_a_panel_for_each_recorded_metric(tmp_path: Path) -> None:
    old, new = steps(100), [s | {"entropy": 1.0, "token_accuracy": 0.5} for s in steps(100)]
    new[9] |= {"val_loss": 0.5, "val_entropy": 0.4, "val_token_accuracy": 0.8}
    assert [c.title for c in training_curves.curves(old)] == ["Training loss"]
    loss, entropy, accuracy = training_curves.curves(new)
    assert (entropy.held_out, accuracy.held_out) == ({10: 0.4}, {10: 0.8})
    assert [c.panel.log for c in (loss, entropy, accuracy)] == [True, False, False]
    assert [c.panel.share for c in (loss, entropy, accuracy)] == [False, False, True]
    sizes = []
    for made in (old, new):
        training_curves.picture(tmp_path / "loss.png", made)
        sizes.append(int.from_bytes((tmp_path / "loss.png").read_bytes()[16:20]))
    assert sizes[1] > 1.5 * sizes[0]  # pixels of its width


def test_rows_per_second_are_printed_where_every_step_recorded_them() -> None:
    assert "mean 500 tokens/s, 8.00 rows/s, balance" in run_facts.training(steps())
    old = steps()
    del old[0]["rows"]
    assert "500 tokens/s, balance" in run_facts.training(old)


@pytest.mark.parametrize(
    ("recipe", "overrides", "share"),
    [
        ("qlora_gsm8k_4b", [], "66.1M of 4.09B (1.62 %), the base included"),
        ("sft_4b", [], "all 4.02B"),
        ("sft_4b", ["model.path=someone/unknown"], None),
    ],
)
def test_the_trained_weights_and_their_share(
    recipe: str, overrides: list[str], share: str | None
) -> None:
    assert run_facts.trained_share(configs.load(recipe, overrides)) == share


def test_alarms_are_listed_newest_first_and_none_if_there_was_none() -> None:
    made = steps(30)
    assert run_facts.alarms(made) == ""
    for step in made[:25]:
        step["alarms"] = [{"kind": "loss", "text": f"high {step['step']}"}]
    head, _, *lines = run_facts.alarms(made).splitlines()
    assert head == "Alarms in training: 25, of which the newest 20."
    assert lines[0] == "- ALARM (loss) at step 25: high 25" and len(lines) == 20


def test_an_alarm_stays_text_on_the_page() -> None:
    made = steps(1)
    made[0]["alarms"] = [{"kind": "loss", "text": "id <script>run()</script>"}]
    assert "<script" not in html(run_facts.alarms(made))
