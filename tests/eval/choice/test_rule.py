"""What the rule takes: by the test, by the held-out loss, by order."""

import pytest

from eval.choice import candidates, power
from eval.choice.rule import EARLIEST, HELD_OUT, HIGHEST, Choice, choose
from tests.eval.choice.conftest import Evaluate, solves, trained
from trainer.recipe import load as configs
from trainer.run.folder import Run

FEW, MANY = solves(range(4)), solves(range(25))
ALSO_MANY = solves(range(1, 26))
"""As many problems as MANY, two of them others."""


def chosen(run: Run) -> Choice:
    return choose(candidates.find(run, configs.read(run.config)).candidates)


def names(choice: Choice) -> list[str]:
    return [str(c.label) for c in choice.tied]


def test_what_is_significantly_worse_is_dropped(run: Run, evaluated: Evaluate) -> None:
    trained(run, {10: 0.1, 20: 0.9})
    evaluated("step_10", FEW)
    evaluated("step_20", MANY)
    choice = chosen(run)
    assert names(choice) == ["step_20"] and choice.chosen is choice.start is choice.best
    assert choice.behind(choice.candidates[0]).is_told


def test_of_the_rest_the_lowest_held_out_loss_is_taken(run: Run, evaluated: Evaluate) -> None:
    trained(run, {10: 0.6, 20: 0.5, 30: 0.7})
    evaluated("step_10", MANY)
    evaluated("step_20", ALSO_MANY)
    evaluated("step_30", solves(range(26)))
    choice = chosen(run)
    assert names(choice) == ["step_10", "step_20", "step_30"]
    assert str(choice.best.label) == "step_30"
    assert (str(choice.chosen.label), choice.decided_by) == ("step_20", HELD_OUT)


def test_without_every_held_out_loss_the_earliest_step_is_taken(
    run: Run, evaluated: Evaluate
) -> None:
    trained(run, {20: 0.5})
    for label in ("step_20", "step_10"):
        evaluated(label, MANY)
    choice = chosen(run)
    assert (str(choice.chosen.label), choice.decided_by) == ("step_10", EARLIEST)


def test_equal_losses_take_the_earlier_step(run: Run, evaluated: Evaluate) -> None:
    trained(run, {10: 0.5, 20: 0.5})
    for label in ("step_20", "step_10"):
        evaluated(label, MANY)
    assert str(chosen(run).chosen.label) == "step_10"


def test_a_step_comes_before_an_average_unless_it_is_worse(run: Run, evaluated: Evaluate) -> None:
    evaluated("step_10", MANY)
    evaluated("avg_10_20", solves(range(26)))
    assert str(chosen(run).chosen.label) == "step_10"


def test_where_only_averages_are_left_rl_takes_the_rules_step(
    run: Run, evaluated: Evaluate
) -> None:
    trained(run, {10: 0.6, 20: 0.5})
    for label in ("step_10", "step_20"):
        evaluated(label, FEW)
    evaluated("avg_10_20", MANY)
    evaluated("avg_10_base30", solves(range(26)))
    choice = chosen(run)
    assert names(choice) == ["avg_10_20", "avg_10_base30"]
    assert (str(choice.chosen.label), choice.decided_by) == ("avg_10_base30", HIGHEST)
    assert choice.start is not None and str(choice.start.label) == "step_20"


def test_averages_alone_leave_rl_without_a_start(run: Run, evaluated: Evaluate) -> None:
    evaluated("avg_10_20", MANY)
    evaluated("avg_10_base30", FEW)
    assert chosen(run).start is None


def test_any_right_rollout_solves_a_problem_and_pass_1_does_not_decide(
    run: Run, evaluated: Evaluate
) -> None:
    """Step 20 is right less often, but on more problems."""
    evaluated("step_10", solves(range(6), of=4))
    evaluated("step_20", solves(range(20), of=1))
    choice = chosen(run)
    assert names(choice) == ["step_20"]
    first, second = (c.evaluation.figures["total"]["pass@1"] for c in choice.candidates)
    assert first > second
    assert [sum(map(sum, c.criterion)) for c in choice.candidates] == [12, 40]


def test_the_number_of_problems_would_tell_them_apart(run: Run, evaluated: Evaluate) -> None:
    """With so many, the difference is the critical value and the power's quantile away from 0."""
    evaluated("step_10", solves(range(20)))
    evaluated("step_20", solves(range(18), range(20, 24)))
    choice = chosen(run)
    other = next(c for c in choice.candidates if c is not choice.best)
    pair, count = choice.behind(other), power.problems_needed(choice, other)
    assert not pair.is_told and count is not None and count > 70
    shrunk = pair.error * (70 / count) ** 0.5
    assert abs(pair.mean / shrunk) - choice.tests.critical == pytest.approx(power.NORMAL, abs=0.01)
    assert power.cost(choice, other, count) == "not timed"


def test_the_cost_is_that_of_the_additional_rollouts_of_both(run: Run, evaluated: Evaluate) -> None:
    """36 and 72 s per rollout; 30 more problems of 4 rollouts are 120 rollouts of each."""
    for label, seconds in (("step_10", 36), ("step_20", 72)):
        timed = {"device": "cuda", "devices": 2, "wall_seconds": 5 * seconds, "timed_rollouts": 10}
        evaluated(label, MANY, timed=timed)
    choice = chosen(run)
    assert power.cost(choice, choice.candidates[1], 100) == "3.6 GPU-hours"
    assert power.problems_needed(choice, choice.candidates[1]) is None  # no difference at all
