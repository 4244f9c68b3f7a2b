"""What ``warmstart choose`` says, and that report and page say it too."""

import pytest

from common.errors import UserError
from eval.choice.page import section, text
from eval.report import report
from eval.report.html.write import write as write_page
from tests.eval.choice.conftest import Evaluate, solves, trained
from trainer.recipe import load as configs
from trainer.run.folder import Run
from trainer.run.model_label import ModelLabel

FEW, MANY, OTHERS = solves(range(4)), solves(range(25)), solves(range(2, 26))


def told(run: Run) -> str:
    return text(run, configs.read(run.config))


def test_a_clear_best_is_recommended_with_the_next_command(run: Run, evaluated: Evaluate) -> None:
    evaluated("step_10", FEW)
    evaluated("step_20", MANY)
    said = told(run)
    assert said.startswith(
        "**step_20 is recommended**: every other candidate is significantly worse in pass@4."
    )
    assert "| step_10 | -60.00 [" in said and "| 0.0001 | worse |  |  |" in said
    assert "- Next: `warmstart rl runs/mine 20`." in said
    assert "do not differ" not in said and "Left out" not in said


def test_a_tie_is_called_one_and_says_what_would_break_it(run: Run, evaluated: Evaluate) -> None:
    trained(run, {10: 0.61, 20: 0.52})
    timed = {"device": "cuda", "devices": 1, "wall_seconds": 36.0, "timed_rollouts": 1}
    evaluated("step_10", MANY, timed=timed)
    evaluated("step_20", OTHERS, timed=timed)
    said = told(run)
    assert said.startswith(
        "**These do not differ significantly in pass@4: step_10, step_20.** By the tie rule, "
        "lowest held-out loss (0.5200), **step_20** is recommended."
    )
    row = next(line for line in said.splitlines() if "| not significant |" in line)
    needed, cost = (cell.strip() for cell in row.strip("| ").split("|")[4:])
    assert int(needed.replace(",", "")) > 70
    hours = (int(needed.replace(",", "")) - 70) * 4 * 72 / 3600
    assert cost == f"{hours:,.1f} GPU-hours"
    assert "arXiv 2510.01624" in said and "Qwen2.5-Coder-3B" in said and "Olmo3-7B" in said
    assert "The second half is a tie rule, not a finding." in said
    assert "The highest p(1 − p) among these would take step_10 (" in said


def test_models_alike_need_no_number_of_problems(run: Run, evaluated: Evaluate) -> None:
    evaluated("step_10", MANY)
    evaluated("step_20", MANY)
    assert "| +0.00 (no spread) | 1.0000 | not significant | no number |  |" in told(run)


def test_a_recommended_average_names_the_step_for_rl(run: Run, evaluated: Evaluate) -> None:
    evaluated("step_10", FEW)
    evaluated("avg_10_20", MANY)
    said = told(run)
    assert said.startswith("**avg_10_20 is recommended**")
    assert "the rule's choice among the steps is step_10: `warmstart rl runs/mine 10`" in said
    assert "--toward" not in said


def test_one_checkpoint_only(run: Run, evaluated: Evaluate) -> None:
    evaluated("step_10", MANY)
    said = told(run)
    assert said.startswith("Only step_10 is evaluated, so there is nothing to choose from.")
    assert "has no other checkpoint, export or average: train.keep_last" in said
    evaluated("step_20", MANY, complete=False)
    assert "- step_20 has an unfinished evaluation: `warmstart eval runs/mine 20" in told(run)


def test_none_evaluated_is_an_error_with_the_commands(run: Run, evaluated: Evaluate) -> None:
    with pytest.raises(UserError, match="warmstart train and warmstart eval runs/mine make one"):
        told(run)
    evaluated("base", MANY)
    evaluated("step_20", MANY, complete=False)
    with pytest.raises(UserError, match="step_20 has an unfinished evaluation: `warmstart eval"):
        told(run)
    assert section(run, configs.read(run.config)) is None


def test_other_settings_are_left_out_by_name(run: Run, evaluated: Evaluate) -> None:
    for label in ("step_10", "step_20"):
        evaluated(label, MANY)
    evaluated("step_30", MANY, max_tokens=100)
    left = told(run).split("Left out:\n\n")[1]
    assert left.startswith("- step_30 was evaluated under other settings (max_tokens): `warmstart ")


def test_one_rollout_per_problem_is_said(run: Run, evaluated: Evaluate) -> None:
    for label in ("step_10", "step_20"):
        evaluated(label, MANY, rollouts=1, temperature=0)
    said = told(run)
    assert (
        "do not differ significantly in pass@1" in said and "eval.rollouts=16 for pass@16" in said
    )


def test_report_and_page_have_the_section(run: Run, evaluated: Evaluate) -> None:
    config = configs.read(run.config)
    evaluated("base", FEW)
    assert "## Which checkpoint" not in report.write(run, config).read_text()
    assert "Which checkpoint" not in write_page(run, config).read_text()
    for label in ("step_10", "step_20"):
        evaluated(label, MANY)
    assert run.export(ModelLabel(20)).exists()
    part = report.write(run, config).read_text().split("## Which checkpoint\n\n")[1]
    assert part.startswith(told(run))
    page = write_page(run, config).read_text()
    assert '<a href="#candidates">Which checkpoint</a>' in page
    assert "These do not differ significantly in pass@4: step_10, step_20." in page
