"""CONTRIBUTING.md: what it says one adds can be added so, and the files and targets that it names
exist.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from data_prep.benchmarks import sets
from tests.conftest import ROOT
from trainer.recipe import files, keys, protocols
from trainer.recipe import load as configs
from warmstart.cli import main

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+)\n((?:(?!^## ).*\n)*)", PAGE, re.MULTILINE))
WAYS = {
    "Add a recipe",
    "Add a benchmark",
    "Add a filter of rows",
    "Add a protocol",
    "Add a kind of GPU",
}


def example(section: str, language: str) -> str:
    (text,) = re.findall(rf"```{language}\n(.*?)```", SECTIONS[section], re.DOTALL)
    return text


@pytest.fixture
def recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of recipes/, with few recipes, that the modules take for the real one."""
    folder = tmp_path / "recipes"
    shutil.copytree(ROOT / "recipes", folder, ignore=shutil.ignore_patterns("*_*"))
    for module in (files, keys, configs):
        monkeypatch.setattr(module, "RECIPES", folder)
    monkeypatch.setattr(protocols, "FOLDER", folder / "protocols")
    return folder


def test_a_recipe_is_added_as_the_page_says(
    recipes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = example("Add a recipe", "yaml")
    name = re.findall(r"^name: (\w+)$", text, re.MULTILINE)[0]
    (recipes / f"{name}.yaml").write_text(text)
    assert main(["recipes"]) == 0
    purpose = text.splitlines()[0].strip("# .")
    assert f"| {name} | {purpose} |" in " ".join(capsys.readouterr().out.split())
    own, parent = configs.load(name), configs.load("tiny")
    assert set(configs.immutable_changes(parent, own)) == {
        "name: tiny -> three_digits",
        "data.arithmetic.digits: 2 -> 3",
        "model.path: runs/tiny/base -> runs/three_digits/base",
        "run.name: tiny -> three_digits",
    }


def test_a_benchmark_is_added_as_the_page_says(tmp_path: Path) -> None:
    line = example("Add a benchmark", "json")
    (tmp_path / "mine.jsonl").write_text(line)
    config = configs.load("tiny", [f"eval.benchmarks={tmp_path}", "eval.sets=[mine]"])
    (problem,) = sets.load(Path(config.eval.benchmarks), list(config.eval.sets), None)
    assert {key: getattr(problem, key) for key in json.loads(line)} == json.loads(line)
    assert problem.set == "mine"


def test_a_protocol_is_added_as_the_page_says(recipes: Path) -> None:
    (recipes / "protocols" / "card.yaml").write_text(example("Add a protocol", "yaml"))
    config = configs.load("tiny", ["eval.protocol=card", "eval.rollouts=2"])
    assert (config.eval.rollouts, config.eval.temperature, config.eval.top_p) == (2, 0.6, 0.95)
    assert protocols.read("card").unknown == {"prefill": ""}


def test_each_way_to_add_something_names_its_files_and_its_tests() -> None:
    assert SECTIONS.keys() >= WAYS
    for name in WAYS:
        assert len(SECTIONS[name].splitlines()) < 40
        assert re.search(r"tests/[\w/]+\.py", SECTIONS[name]), name
    named = re.findall(
        r"\b((?:tests|tools|recipes|docs|[a-z_]+/[a-z_/]+)[\w/]*\.(?:py|yaml|md))", PAGE
    )
    assert len(named) > 20
    missing = [path for path in named if "NAME" not in path and not (ROOT / path).exists()]
    assert missing == []


def test_the_targets_that_it_names_are_there() -> None:
    help_text = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True).stdout
    targets = set(re.findall(r"^  ([a-z-]+) ", help_text, re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)", PAGE))
    assert len(named) > 8 and named <= targets
