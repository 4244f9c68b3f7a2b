"""The site's choices: between the recipe and the command line, and never in a run that exists."""

from functools import partial
from pathlib import Path

import pytest

from common.errors import UserError
from trainer.recipe import load as configs
from trainer.run import frozen_config
from trainer.run.folder import Run

CHOICES = """OVERRIDES=(
    run.root=far/runs data.dir=far/data train.hang_minutes=25 train.loggers=[tensorboard]
    'eval.prompt={problem} Box it.' 'run.authors=[A B]'
)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "slurm").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def choices(text: str) -> None:
    Path("slurm/site.env").write_text(text)


def chosen(*typed: str) -> tuple[list[str], dict[str, object]]:
    """The overrides, and the values that the tests look at."""
    words, config = frozen_config.choose(partial(configs.load, "tiny"), typed)
    keys = {"run": "root", "data": "dir", "train": "hang_minutes", "eval": "prompt"}
    return words, {key: config[key][name] for key, name in keys.items()} | {
        "loggers": list(config.train.loggers)
    }


def test_the_site_wins_over_the_recipe_and_the_command_line_over_the_site() -> None:
    choices(CHOICES)
    words, values = chosen("train.hang_minutes=3")
    assert values == {
        "run": "far/runs",
        "data": "far/data",
        "train": 3.0,
        "eval": "{problem} Box it.",
        "loggers": ["tensorboard"],
    }
    assert words[-1] == "train.hang_minutes=3" and "train.hang_minutes=25" not in words
    assert configs.load("tiny", words).data.dir == "far/data"


def test_a_wrong_choice_names_the_site_file() -> None:
    choices("OVERRIDES=(train.lrr=1)")
    with pytest.raises(UserError, match=r"unknown key train.lrr.*\(slurm/site.env has train.lrr=1"):
        chosen()


@pytest.mark.parametrize("before", ["", CHOICES.replace("far/data", "old/data")])
def test_a_started_run_keeps_its_values(before: str) -> None:
    """Without a site, and with another one; it is found where the site says."""
    choices(before)
    load = partial(configs.load, "tiny")
    frozen_config.start(frozen_config.choose(load, ["run.root=far/runs"])[1])
    _, values = chosen("run.root=far/runs")
    choices(CHOICES.replace("25", "99").replace("Box it.", 'Do "box" it.'))
    words, later = chosen()
    assert later == values
    assert frozen_config.choose(load, words)[1] == frozen_config.choose(load, [])[1]
    typed = chosen("train.hang_minutes=7", "data.dir=new")[1]
    assert typed == values | {"train": 7.0, "data": "new"}
    frozen_config.check(frozen_config.choose(load, [])[1])


def test_a_choice_that_may_not_change_does_not_stop_a_started_run() -> None:
    load = partial(configs.load, "tiny")
    own = ["data.prompt=It's {problem}", 'data.dir="it\'s here"', "run.authors=[A,B C]"]
    frozen_config.start(frozen_config.choose(load, own)[1])
    choices(
        "OVERRIDES=(data.dir=/x run.authors=[] model.license=null 'data.prompt={problem}!' "
        "train.lr=1e-4 'train.betas=[0.8,0.9]')"
    )
    config = frozen_config.choose(load, [])[1]
    frozen_config.check(config)
    assert (config.data.prompt, config.train.lr) == ("It's {problem}", 2e-3)
    assert (config.data.dir, config.run.authors) == ("it's here", ["A", "B C"])
    assert (config.model.license, config.train.betas) == ("apache-2.0", [0.9, 0.95])


def test_a_bare_models_dataset_stays_in_its_run() -> None:
    choices(CHOICES)
    load = partial(configs.for_model, "some/model")
    config = frozen_config.choose(load, [], without="data.")[1]
    assert (config.run.root, config.data.dir) == ("far/runs", "far/runs")


def test_a_run_is_found_by_its_name_where_the_site_has_its_runs() -> None:
    for root in ("runs", "far/runs"):
        for name in ("a", "b") if root == "runs" else ("b", "c"):
            frozen_config.start(configs.load("tiny", [f"run.root={root}", f"run.name={name}"]))
    choices(CHOICES)
    found = {name: Run.find(name) for name in ("a", "b", "c", "d", "runs/b")}
    assert {name: run and str(run.root) for name, run in found.items()} == {
        "a": "runs/a",
        "b": "far/runs/b",
        "c": "far/runs/c",
        "d": None,
        "runs/b": "runs/b",
    }
