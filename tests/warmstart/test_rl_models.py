"""The command on models of RL: export, eval, status by ``rl-N``."""

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
from tests.trainer.export.rl_checkpoints import HASH, LABEL, STEP, saved, tiny
from trainer.recipe import load as configs
from trainer.run.folder import Run
from warmstart.cli import main


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A trained run with RL's checkpoint of step 20, as its files tell it."""
    config = tiny(tmp_path_factory.mktemp("rl"))
    saved(config)
    run = Run.of(config)
    attempt = run.new_attempt()
    configs.write(config, attempt.config)
    write_json(attempt.provenance, {"git": "c0ffee", "versions": {}, "first_step": 0})
    write_text(attempt.metrics, "".join(step(n).json() for n in range(1, STEP + 1)))
    return run


@pytest.fixture
def run(made: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """That run, as the current folder's."""
    monkeypatch.chdir(made.root.parents[1])
    return made


def evaluated(run: Run) -> Path:
    """Evaluates the export of RL's model without an engine."""
    config = configs.read(run.config)
    planned = evaluate.plan(config, run, LABEL)
    planned.folder.mkdir(parents=True)
    sampling = planned.settings.sampling
    with (planned.folder / rollout_files.ROLLOUTS).open("w") as f:
        for p in sets.load(Path(config.eval.benchmarks), list(config.eval.sets), None):
            for k in range(sampling.rollouts):
                text, key = f"<think>\n?\n</think>\n\n\\boxed{{{p.answer}}}", (p.set, p.id, k)
                rollout_files.append(f, Rollout(key, 0, text, 20, "stop", "engine-0", 1.0))
    return evaluate.evaluate(config, run, LABEL)


def test_eval_exports_first_and_takes_what_is_there(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "tiny", "rl-20"]) == 0
    folder = evaluated(run)
    made = (run.export(LABEL) / MANIFEST).read_bytes()
    shutil.rmtree(run.export(LABEL))
    capsys.readouterr()
    assert main(["eval", "tiny", "rl-20"]) == 0
    assert (run.export(LABEL) / MANIFEST).read_bytes() == made
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith(f"exported {Path('runs/tiny/export') / str(LABEL)}")
    assert folder.name in [Path(line).name for line in said]
    assert "100.00 %" in (run.export(LABEL) / "README.md").read_text()
    assert main(["status", "tiny", "--json"]) == 0
    values = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert values["rl_exports"] == [f"rl-20-{HASH}"] and values["exports"] == []
    assert values["rl"][0]["checkpoints"] == [10, 20]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["export", "tiny", "rl-30"],
            f"no model rl-30 of RL (available: rl-10-{HASH}, rl-20-{HASH})",
        ),
        (["eval", "tiny", "rl-20-00000000"], "no model rl-20-00000000 of RL"),
        (["eval", "tiny", "rl-10"], "has no weights"),
        (["rl", "tiny", "rl-20"], "RL starts from a step of SFT: give the number of an export"),
        (["compare", "tiny@rl-10", "tiny@base"], "no complete evaluation of rl-10"),
        (["export", "tiny", "rl-x"], "'rl-x' names no model of a run"),
    ],
)
def test_a_users_error_is_named_and_exits_2(
    run: Run, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert message in capsys.readouterr().err
