"""A run that was moved and renamed goes on where it is, and so does one whose dataset was moved."""

import shutil
import tarfile
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.test_old_runs import WORDS
from trainer.recipe import load as configs
from trainer.run import frozen_config
from trainer.run.folder import Run
from warmstart.cli import main

NEW = "elsewhere/other"
TRAIN = ["train", "tiny", *WORDS, "run.root=elsewhere", "run.name=other"]


@pytest.fixture
def moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """An exported and evaluated run, no longer where its config.yaml says."""
    with tarfile.open(ROOT / "tests" / "old_run.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    Path("elsewhere").mkdir()
    Path("runs/old").rename(NEW)
    Path("runs").rmdir()
    return Run(Path(NEW))


def test_every_verb_works_at_the_new_place(moved: Run) -> None:
    done = {path: path.stat().st_mtime for path in moved.evaluations}
    step = moved.exports[-1]
    shutil.rmtree(moved.export(step))
    moved.report.unlink(missing_ok=True)
    for words in (
        ["status", NEW],
        ["export", NEW, str(step)],
        ["eval", NEW, "base"],
        ["report", NEW, "--partial"],
        ["compare", f"{NEW}@base", NEW, "--partial"],
    ):
        assert main(words) == 0, words
    assert moved.exports == [step] and moved.report.exists()
    assert {path: path.stat().st_mtime for path in moved.evaluations} == done
    assert frozen_config.check(configs.load(TRAIN[1], TRAIN[2:])) == moved
    assert not Path("runs").exists()


def test_the_base_model_is_the_one_in_the_moved_run(moved: Run) -> None:
    """Also where another run has taken the old place, and from within the folder."""
    shutil.copytree(moved.root, "runs/old")
    config = frozen_config.read(moved)
    assert (config.run.root, config.run.name) == ("elsewhere", "other")
    assert config.model.path == config.verl.model.path == f"{NEW}/base"
    assert config.data.dir == "data" and config.eval.benchmarks == "data/old"
    assert frozen_config.read(Run(Path("runs/old"))).model.path == "runs/old/base"
    assert frozen_config.read(moved, moved.attempts[-1].config).model.path == f"{NEW}/base"


def test_a_run_is_known_by_its_folder_alone(moved: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(NEW)
    run = Run.find(".")
    assert run is not None and run.name == "other"
    assert frozen_config.read(run).model.path == str(Path("base").resolve())


def test_a_bare_models_tokenizer_lies_in_its_moved_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = Run.of(configs.for_model("owner/model", []))
    configs.write(configs.for_model("owner/model", []), run.config)
    run.root.rename("other")
    config = frozen_config.read(Run(Path("other")))
    assert config.verl.model.tokenizer_path == "./other/tokenizer"
    assert (config.data.dir, config.data.name) == (".", "other")


@pytest.mark.parametrize(
    "words",
    [["eval", NEW, "base"], ["export", NEW, "STEP"], ["rl", NEW], TRAIN],
    ids=lambda w: w[0],
)
def test_a_moved_dataset_is_asked_for_where_it_is_needed(
    moved: Run, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    step = moved.exports[-1]
    words = [str(step) if word == "STEP" else word for word in words]
    if words[0] == "export":
        shutil.rmtree(moved.export(step))
    Path("data").rename("there")
    Path("there/old").rename("there/new")
    assert main(words) == 2
    assert "add data.dir=FOLDER (and data.name=NAME" in capsys.readouterr().err
    assert main(["status", NEW]) == main(["report", NEW, "--partial"]) == 0
    assert not Path("data").exists() and not Path("runs").exists()
    if words[0] in ("eval", "export"):
        assert main([*words, "data.dir=there", "data.name=new"]) == 0
        assert moved.exports == [step]
    elif words[0] == "train":
        config = configs.load("tiny", [*words[2:], "data.dir=there", "data.name=new"])
        assert frozen_config.check(config) == moved
