"""RL's models of a run: found by checkpoint, export or evaluation, and named by step."""

import os
from pathlib import Path

import pytest

from common.errors import UserError
from common.files import MANIFEST
from tests.trainer.run.rl_runs import begun
from trainer.run import rl_models
from trainer.run.folder import Run
from trainer.run.model_label import BASE, ModelLabel

OLD, NEW = "0a0a0a0a", "0b0b0b0b"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run with two starts: the older one has steps 10 and 20, the newer one 10 and 15."""
    run = Run(tmp_path / "runs" / "mine")
    for number, (name, steps) in enumerate(((OLD, (10, 20)), (NEW, (10, 15)))):
        start = begun(run, 480, name, checkpoints=steps)
        os.utime(start.manifest, (number, number))
    return run


def label(step: int, start: str | None = None) -> ModelLabel:
    return ModelLabel(rl=step, start=start)


def test_a_step_is_that_of_the_newest_start_that_has_it(run: Run) -> None:
    assert rl_models.resolve(run, label(10)) == label(10, NEW)
    assert rl_models.resolve(run, label(20)) == label(20, OLD)
    assert rl_models.resolve(run, label(10, OLD)) == label(10, OLD)
    assert rl_models.resolve(run, BASE) == BASE
    os.utime(run.rl_start(480, OLD) / MANIFEST, (9, 9))
    assert rl_models.resolve(run, label(10)) == label(10, OLD)


def test_an_unknown_one_is_refused_with_those_that_are_there(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refusal:
        rl_models.resolve(run, label(30))
    said = f"no model rl-30 of RL (available: rl-10-{OLD}, rl-20-{OLD}, rl-10-{NEW}, rl-15-{NEW})"
    assert said in str(refusal.value) and f"warmstart eval {run.root} rl-15-{NEW}" in str(
        refusal.value
    )
    with pytest.raises(UserError, match=f"no model rl-15-{OLD} of RL"):
        rl_models.resolve(run, label(15, OLD))
    with pytest.raises(UserError, match="no checkpoint of RL: warmstart rl "):
        rl_models.resolve(Run(tmp_path / "bare"), label(10))


def test_exports_and_evaluations_outlive_checkpoints_and_starts(run: Run) -> None:
    export = run.export(label(40, OLD))
    export.mkdir(parents=True)
    with pytest.raises(UserError, match="no model rl-40"):
        rl_models.resolve(run, label(40))
    (export / MANIFEST).write_text('{"step": 470}')
    export.with_name(f"{export.name}-copy").mkdir()
    (export.with_name(f"{export.name}-copy") / MANIFEST).write_text("{}")
    assert rl_models.exported(run) == [label(40, OLD)] and run.exports == []
    assert rl_models.resolve(run, label(40)) == label(40, OLD)
    gone = label(50, "0c0c0c0c")
    run.evaluation("t0", gone, "0" * 64).mkdir(parents=True)
    assert rl_models.resolve(run, label(50)) == gone
    assert rl_models.known(run)[0] == gone
    assert rl_models.sft_step(run, label(40, OLD)) == 480
    assert rl_models.sft_step(run, gone) is None


def test_a_checkpoint_counts_when_verl_has_noted_it(run: Run) -> None:
    start = begun(run, 480, "0d0d0d0d", checkpoints=(5, 6))
    (start.checkpoints / "latest_checkpointed_iteration.txt").write_text("5")
    with pytest.raises(UserError, match="no model rl-6"):
        rl_models.resolve(run, label(6))


def test_a_renamed_start_is_no_models_start(run: Run) -> None:
    old = run.rl_start(480, OLD)
    old.rename(old.with_name("step_480-mine"))
    assert rl_models.start_of(run, label(10, OLD)) is None
    assert [x.start for x in rl_models.known(run)] == [NEW, NEW]
