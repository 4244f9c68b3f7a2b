"""Which models can be chosen, and what is said of the others."""

import os
import shlex

from common.files import MANIFEST, read_json, write_json
from eval.choice import candidates
from tests.eval.choice.conftest import SETS, Evaluate, solves
from trainer.recipe import load as configs
from trainer.run.folder import Run
from trainer.run.model_label import ModelLabel

SOME = solves(range(10))


def found(run: Run) -> tuple[list[str], str]:
    field = candidates.find(run, configs.read(run.config))
    return [str(c.label) for c in field.candidates], "\n".join(field.left_out)


def test_steps_and_averages_stand_side_by_side_and_other_models_do_not(
    run: Run, evaluated: Evaluate
) -> None:
    for label in ("step_20", "avg_10_20", "step_10", "base", "rl_5-0123abcd"):
        evaluated(label, SOME)
    assert found(run) == (["step_10", "step_20", "avg_10_20"], "")


def test_the_settings_that_most_share_count_and_others_are_named_with_a_command(
    run: Run, evaluated: Evaluate
) -> None:
    for label in ("step_10", "step_20"):
        evaluated(label, SOME, max_tokens=100, temperature=1.0)
    evaluated("step_30", SOME, max_tokens=200, temperature=1.0)
    labels, left = found(run)
    assert labels == ["step_10", "step_20"]
    assert left.startswith("step_30 was evaluated under other settings (max_tokens): `")
    words = shlex.split(left.split("`")[1])
    assert words[:4] == ["warmstart", "eval", "runs/mine", "30"]
    config = configs.amend(configs.read(run.config), words[4:])
    assert (config.eval.max_tokens, config.eval.temperature) == (100, 1.0)
    assert list(config.eval.sets) == list(SETS)


def test_of_as_many_the_newest_count(run: Run, evaluated: Evaluate) -> None:
    older = evaluated("step_10", SOME)
    evaluated("step_20", SOME, seed=1)
    os.utime(older / "manifest.json", (1, 1))
    assert found(run)[0] == ["step_20"]


def test_models_without_a_whole_evaluation_are_named(run: Run, evaluated: Evaluate) -> None:
    evaluated("step_10", SOME)
    evaluated("step_20", SOME, complete=False)
    run.checkpoint(30).mkdir(parents=True)
    (run.checkpoint(30) / "manifest.json").write_text("{}")
    labels, left = found(run)
    assert labels == ["step_10"]
    unfinished, not_evaluated = left.splitlines()
    assert unfinished.startswith(
        "step_20 has an unfinished evaluation: `warmstart eval runs/mine 20 "
    )
    assert not_evaluated.startswith(
        "step_30 is not evaluated: `warmstart export runs/mine 30 && warmstart eval runs/mine 30 "
    )


def test_what_was_deleted_has_no_command(run: Run, evaluated: Evaluate) -> None:
    evaluated("step_10", SOME)
    evaluated("step_20", SOME)
    evaluated("step_30", SOME, rollouts=2)
    (run.export(ModelLabel(30)) / "manifest.json").unlink()
    assert found(run)[1] == (
        "step_30 was evaluated under other settings (rollouts), and its weights were deleted."
    )


def test_an_older_grade_is_left_out(run: Run, evaluated: Evaluate) -> None:
    evaluated("step_10", SOME, grader=1)
    evaluated("step_20", SOME)
    folder = next(f for f in run.evaluations if "@step_10-" in f.name)
    assert found(run) == (
        ["step_20"],
        f"step_10 was graded under older rules: `warmstart grade {folder}`.",
    )


def test_benchmarks_of_another_folder_are_in_the_command(run: Run, evaluated: Evaluate) -> None:
    for label in ("step_10", "step_20"):
        path = evaluated(label, SOME) / MANIFEST
        write_json(path, read_json(path) | {"benchmarks": "my sums"})
    evaluated("step_30", SOME, complete=False)
    words = shlex.split(found(run)[1].split("`")[1])
    config = configs.amend(configs.read(run.config), words[4:])
    assert config.eval.benchmarks == "my sums"
