"""The command on averages: export, eval, status, compare, and what it refuses."""

import json
import shutil
from pathlib import Path

import pytest

from common.files import MANIFEST, write_json, write_text
from common.records import Rollout
from data_prep.benchmarks import sets
from eval import evaluate
from eval.generation import rollout_files
from tests.eval.card.card_runs import step
from tests.trainer.export import averaged
from tests.trainer.export.rl_checkpoints import tiny
from trainer.recipe import load as configs
from trainer.run.folder import Run
from trainer.run.model_label import ModelLabel
from warmstart.cli import main

STEPS = (4, 8)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A trained run with two checkpoints, as its files tell it."""
    config = tiny(tmp_path_factory.mktemp("averages"))
    run = Run.of(config)
    (Path(config.data.dir) / "tiny" / MANIFEST).unlink()  # the dataset was deleted since
    for number in STEPS:
        averaged.save(run, number, averaged.stepped(config, number))
    attempt = run.new_attempt()
    configs.write(config, attempt.config)
    write_json(attempt.provenance, {"git": "c0ffee", "versions": {}, "first_step": 0})
    write_text(attempt.metrics, "".join(step(n).json() for n in range(1, STEPS[-1] + 1)))
    return run


@pytest.fixture
def run(made: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """That run, as the current folder's, without exports and evaluations."""
    monkeypatch.chdir(made.root.parents[1])
    for name in ("export", "evals"):
        shutil.rmtree(made.root / name, ignore_errors=True)
    return made


def evaluated(run: Run, label: ModelLabel, right: int) -> Path:
    """Evaluates an export without an engine; of each problem so many rollouts are right."""
    config = configs.read(run.config)
    planned = evaluate.plan(config, run, label)
    planned.folder.mkdir(parents=True)
    with (planned.folder / rollout_files.ROLLOUTS).open("w") as f:
        for p in sets.load(Path(config.eval.benchmarks), list(config.eval.sets), None):
            for k in range(planned.settings.sampling.rollouts):
                said = p.answer if k < right else "x"
                text = f"<think>\n?\n</think>\n\n\\boxed{{{said}}}"
                rollout_files.append(
                    f, Rollout((p.set, p.id, k), 0, text, 20, "stop", "engine-0", 1.0)
                )
    return evaluate.evaluate(config, run, label)


def test_an_average_is_exported_evaluated_reported_and_compared(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    label = ModelLabel(average="4-8-base30")
    assert main(["export", "tiny"]) == 0
    assert main(["export", "tiny", "--average", "4,8", "--toward", "base=0.3"]) == 0
    assert (run.export(label) / "README.md").exists() and run.exports == [8]
    made = (run.export(label) / MANIFEST).read_bytes()
    assert main(["export", "tiny", "--toward=base=0.3", "--average=8,4"]) == 0
    assert main(["export", "tiny", "avg-4-8-base30", "data.name=tiny"]) == 0  # as slurm/eval.sh
    assert (run.export(label) / MANIFEST).read_bytes() == made
    assert main(["export", "tiny", "--toward", "base=0.5", "--name", "half"]) == 0
    assert main(["export", "tiny", "4", "--toward", "base=0.5"]) == 0
    evaluated(run, ModelLabel(8), 4)
    folder = evaluated(run, label, 8)
    assert folder.name.startswith("heldout@avg_4_8_base30-")
    capsys.readouterr()
    assert main(["eval", "tiny", "avg-4-8-base30"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("| avg_4_8_base30 | pass@1 | ")
    assert folder.name in [Path(line).name for line in said]
    assert main(["eval", "tiny"]) == 0  # the newest step of SFT, not an average
    assert "@step_8-" in capsys.readouterr().out
    assert main(["status", "tiny", "--json"]) == 0
    values = json.loads(capsys.readouterr().out.splitlines()[-1])
    averages = ["avg-4-8-base30", "avg-4-base50", "avg-half"]
    assert values["averages"] == averages and values["exports"] == [8]
    assert values["evaluations"][folder.name] == "done"
    assert main(["status", "tiny"]) == 0
    assert f"8, {', '.join(averages)}" in capsys.readouterr().out
    assert main(["report", "tiny"]) == 0
    assert "avg_4_8_base30, step_8," in run.report.read_text()
    assert "avg_4_8_base30, step_8," in (run.export(label) / "README.md").read_text()
    assert main(["compare", "tiny@avg-4-8-base30", "tiny@8"]) == 0
    assert "## A = tiny@avg_4_8_base30, B = tiny@step_8" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("export tiny --average 4,9", "no export of step 9 (available: 4, 8)"),
        ("export tiny --average 4,4", "step 4 is given twice (available: 4, 8)"),
        ("export tiny --average 4", "an average needs two steps"),
        ("export tiny --average 4:1,8:0", "a weight must be greater than 0 (available: 4, 8)"),
        ("export tiny --average 4:1,8", "give every step a weight, or none"),
        ("export tiny --average 4+8", "give steps as in 704,1056"),
        ("export tiny --average 4,8 --toward base=1.0", "a number between 0 and 1"),
        ("export tiny --toward 4=0.3", "give base=SHARE"),
        ("export tiny 8 --average 4,8", "give 8 in that list, or not at all"),
        ("export tiny 9 --toward base=0.3", "no export of step 9 (available: 4, 8)"),
        ("export tiny base --toward base=0.3", "only a step of SFT can be moved, not base"),
        ("export tiny --name mine", "add --average STEPS or --toward base=SHARE"),
        ("export tiny --average 4,8 --name 704", "not a number, base, rl-N or step-N"),
        ("export tiny avg-4-8", "no average avg-4-8 (available: none)"),
        ("export tiny --average 4,8 --push ownerless", "OWNER/ownerless"),
        (
            "eval tiny avg-4-8",
            "no average avg-4-8 (available: none): warmstart export runs/tiny --av",
        ),
        ("compare tiny@avg-4-8 tiny", "no average avg-4-8"),
        ("rl tiny avg-4-8", "RL starts from a step of SFT: give the number of an export"),
    ],
)
def test_a_users_error_is_one_line_exits_2_and_writes_nothing(
    run: Run, words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(run.root.rglob("*"))
    assert main(words.split()) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
    assert sorted(run.root.rglob("*")) == before


def test_other_members_under_a_name_are_refused(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "tiny", "--average", "4,8", "--name", "mine"]) == 0
    before = (run.export(ModelLabel(average="mine")) / MANIFEST).read_bytes()
    assert main(["export", "tiny", "--average", "4:1,8:3", "--name", "mine"]) == 2
    assert "avg_mine is another average (4:1/2, 8:1/2, base 0)" in capsys.readouterr().err
    assert (run.export(ModelLabel(average="mine")) / MANIFEST).read_bytes() == before
