"""What CHANGELOG.md promises, on each release's own files and interface: tests/releases/ has a
finished run, a stopped one, their dataset and recipe, made by that release's code
(tools/release_artefacts.py).
"""

import json
import re
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from common import exit_codes
from common.files import MANIFEST, read_json, sha256_file
from eval import evaluate
from tests.conftest import ROOT, warmstart
from tools.release_artefacts import MIDDLE, places
from trainer.checkpoint import resume
from trainer.doctor.findings import Finding, Located
from trainer.recipe import files, protocols, schema
from trainer.recipe import load as configs
from trainer.run.folder import Run, is_complete
from trainer.run.frozen_config import check
from trainer.run.model_label import BASE, ModelLabel
from trainer.run.trained_from import dataset_identity, model_identity
from warmstart.cli import VERBS, main

FOLDER = ROOT / "tests" / "releases"
VERSIONS = sorted(path.name.removesuffix(".tar.gz") for path in FOLDER.glob("*.tar.gz"))
MINE = "mine.yaml"


@dataclass(frozen=True)
class Release:
    """A release's files, in a folder, and its interface."""

    folder: Path
    interface: dict[str, Any]

    @property
    def last(self) -> int:
        """The last step of the finished run."""
        return Run(self.folder / "runs" / "finished").checkpoints[-1]


@pytest.fixture(scope="module", params=VERSIONS)
def unpacked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Release:
    folder = tmp_path_factory.mktemp("release")
    with tarfile.open(FOLDER / f"{request.param}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return Release(folder, read_json(FOLDER / f"{request.param}.json"))


@pytest.fixture
def release(unpacked: Release, monkeypatch: pytest.MonkeyPatch) -> Release:
    """The release, in the current folder."""
    monkeypatch.chdir(unpacked.folder)
    return unpacked


Say = Callable[..., str]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Runs the command here; returns what it prints."""

    def run(*words: str) -> str:
        assert main(words) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    return run


def test_the_promise_is_tested_on_the_first_release_and_the_version_is_one() -> None:
    assert "0.1.0" in VERSIONS
    (version,) = re.findall(r'version="(.+)"', (ROOT / "setup.py").read_text(encoding="utf-8"))
    log = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## \[(.+)\] - \d{4}-\d\d-\d\d$", log, re.MULTILINE)[0] == version


def test_verbs_options_and_arguments_are_still_there(release: Release) -> None:
    for verb, options in release.interface["options"].items():
        takes = [argument for names, how in VERBS[verb][1] for argument in ((names, how),)]
        valued = {name: "action" not in how for names, how in takes for name in names}
        assert {name: valued.get(name) for name in options} == options, verb
        own = [names[0] for names, _ in takes if not names[0].startswith("-")]
        assert (
            own[: len(release.interface["arguments"][verb])]
            == (release.interface["arguments"][verb])
        )
    codes = {name: getattr(exit_codes, name) for name in release.interface["exit_codes"]}
    assert codes == release.interface["exit_codes"]


def test_recipes_protocols_and_keys_are_still_there(release: Release) -> None:
    assert {*files.recipes()} >= {*release.interface["recipes"]}
    assert {*protocols.names()} >= {*release.interface["protocols"]}
    now = dict(schema.recipe_keys())
    assert [key for key in release.interface["keys"] if key not in now] == []
    free = {key for key, mutable in release.interface["keys"].items() if mutable}
    assert [key for key in free if not now[key]] == [], "a run could change these"


def test_keys_of_json_are_still_there(release: Release, say: Say) -> None:
    printed = {
        "status": json.loads(say("status", "finished", "--json")),
        "runs": json.loads(say("runs", "--json")),
        "doctor": Located(Finding("", "", ""), []).json(),
    }
    for verb, keys in release.interface["json"].items():
        assert [key for key in keys if key not in places(printed[verb])] == [], verb


def test_a_users_recipe_and_the_frozen_ones_load_and_agree(release: Release) -> None:
    for name in ("finished", "stopped"):
        run = check(configs.load(MINE, [f"run.name={name}"]))
        assert run.config.exists()
        assert configs.read(run.config).train.batch_size == 16


def test_the_dataset_is_recognised(release: Release, say: Say) -> None:
    before = sha256_file(Path("data/sums") / MANIFEST)
    assert "data/sums" in say("data", MINE)
    assert sha256_file(Path("data/sums") / MANIFEST) == before
    assert "--- loss ---" in say("inspect", MINE, "--row", "3")


def test_a_finished_run_is_known_as_such(release: Release, say: Say) -> None:
    shown = say("status", "finished")
    assert f"step {release.last} of {release.last}" in shown and "finished" in shown
    assert shown.count("pass@1") >= 3
    assert "finished already" in say("train", MINE, "run.name=finished")
    table = say("runs")
    assert "| finished | " in table and "| stopped | " in table


def test_a_stopped_run_goes_on_from_its_checkpoint(release: Release, say: Say) -> None:
    assert "stopped" in say("status", "stopped")
    config = configs.load(MINE, ["run.name=stopped"])
    identity = {"dataset": dataset_identity(config)} | model_identity(config.model.path, None)
    run = check(config)
    (step,) = run.checkpoints
    assert 0 < step < release.last
    start = resume.choose(run, identity)
    assert (start.step, start.bad) == (step, [])


def test_its_evaluations_are_complete(release: Release, say: Say) -> None:
    run = Run(Path("runs/finished"))
    labels = [BASE, ModelLabel(MIDDLE), ModelLabel(release.last)]
    planned = [evaluate.plan(configs.read(run.config), run, label).folder for label in labels]
    assert all(map(is_complete, planned)) and sorted(planned) == run.evaluations
    assert "pass@1" in say("eval", "finished", "base")


def test_its_evaluations_are_reported_compared_and_chosen_from(release: Release, say: Say) -> None:
    assert "report.html" in say("report", "finished")
    assert "pass@1" in Path("runs/finished/report.md").read_text()
    compared = say("compare", "finished@base", f"finished@{release.last}")
    assert "base" in compared and f"step_{release.last}" in compared
    chosen = say("choose", "finished")
    assert f"step_{MIDDLE}" in chosen and "warmstart rl" in chosen


def test_its_rollouts_are_graded_again(release: Release, say: Say) -> None:
    folder = next(Path("runs/finished/evals").glob("*@base-*"))
    before = (folder / "grades.jsonl").read_text()
    assert " of 16 right" in say("grade", str(folder))
    assert len((folder / "grades.jsonl").read_text().splitlines()) == len(before.splitlines())
    assert read_json(folder / MANIFEST)["graded_with"]["python"] == sys.version.split()[0]


def test_its_recipe_is_planned(release: Release, say: Say) -> None:
    assert "steps of 16 rows" in say("plan", MINE, "run.name=finished")


@pytest.mark.slow
def test_a_stopped_run_trains_to_its_end(release: Release) -> None:
    done = warmstart("train", MINE, "run.name=stopped", folder=release.folder)
    assert "resuming from runs/stopped/checkpoints/step_" in done.stdout
    assert Run(release.folder / "runs" / "stopped").checkpoints[-1] == release.last
