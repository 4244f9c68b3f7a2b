"""A slip on the command line or in a recipe is told at once, in one line, and starts nothing."""

import os
from pathlib import Path
from typing import Any

import pytest

from common.text import nearest
from tests.eval.runs import empty_run
from tests.warmstart.mistakes import Careless, watch
from trainer.recipe import load as configs
from trainer.recipe import schema
from trainer.recipe.keys import mirrors


@pytest.fixture
def user(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Careless:
    empty_run(tmp_path / "runs" / "tiny")
    empty_run(tmp_path / "runs" / "over128")
    return watch(monkeypatch, capsys, tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "give a verb (data, inspect,"),
        ("trian tiny", "unknown verb 'trian'; did you mean train? (warmstart --help)"),
        ("tiny run", "unknown verb 'tiny': the verb comes first: warmstart run tiny"),
        ("--hlep", "unknown option --hlep; did you mean --help?"),
        ("train", "RECIPE is missing (warmstart train --help"),
        ("status", "RUN is missing (warmstart status --help"),
        ("grade", "FILE|DIR is missing (warmstart grade --help"),
        ("train tiny train.lr=1e-4 --foo", "train has no option --foo (it has none; warmstart"),
        ("train tiny --train.lr=1", "write train.lr=1 without dashes"),
        ("train tiny -x", "train has no option -x"),
        (
            "report tiny --partail",
            "report has no option --partail; did you mean --partial? (its options",
        ),
        ("rl tiny --problms 3", "did you mean --problems?"),
        ("rl tiny --problems", "--problems: expected one argument (warmstart rl --help"),
        ("rl tiny --problems many", "--problems: invalid int value: 'many'"),
        ("inspect tiny --split tst", "--split: invalid choice: 'tst'"),
        ("status tiny more", "unexpected argument more (warmstart status --help"),
        ("train tiny lr", "'lr' is not an override: write key=value"),
        ("train tiny lr=3", "did you mean train.lr?"),
        ("train tiny max_tokens=3", "did you mean data.synth.max_tokens or eval.max_tokens?"),
        ("train tiny train.lrr=3", "did you mean train.lr?"),
        ("train tiny train=3", "train is a section; set the keys in it"),
        ("plan tinny", "did you mean tiny?"),
        ("plan Tiny", "did you mean tiny?"),
        ("plan tiny.yaml", "tiny.yaml does not exist: give the path of a recipe's file, or a name"),
        ("plan runs/", "runs/ is a folder: give the path of a recipe's file"),
        ("eval tinny", "tinny is neither a run, a folder nor OWNER/NAME on the hub; did you mean"),
        ("eval runs/tinny", "did you mean runs/tiny?"),
        ("eval ./tinny", "./tinny is neither a run, a folder"),
        ("eval runs/tiny/export/step_9", "(exports of runs/tiny: none)"),
        ("eval tiny bsae", "did you mean base?"),
        ("eval tiny 7", "has no export of step_7 (exports: none; checkpoints: none)"),
        ("export tiny 7", "no complete checkpoint of step 7 (complete: none)"),
        ("rl tiny 7", "no export of step 7"),
        ("status tinny", "no run at tinny or runs/tinny"),
        ("report tinny", "did you mean tiny?"),
        ("export tinny", "did you mean tiny?"),
        ("choose tiny,over12", "no run at over12 or runs/over12"),
        ("rl over12", "did you mean over128?"),
        ("watch over12", "did you mean over128?"),
        ("compare tinny@base over128", "did you mean tiny?"),
        ("compare tiny@7 over128", "has no complete evaluation of 7 (available: none)"),
        ("status runs", "no run at runs: the folder has no config.yaml"),
        ("train tiny eval.protocol=our", "eval.protocol=our: recipes/protocols/ has"),
        ("train tiny eval.protocol=our", "did you mean ours?"),
        ("train tiny eval.sets=[a", "cannot be read as a value"),
        ("train tiny train.lr=1,2", "cannot be read as a value"),
        ("train tiny name='x", "cannot be read as a value"),
        ("train tiny data.dir=${no.key}", "data.dir and data.name: Interpolation key 'no.key'"),
        ("train tiny run.root=", "run.root must be a path (. is this folder), not ''"),
        ("train tiny data.dir=", "data.dir must be a path (. is this folder), not ''"),
        ("inspect tiny train.seed=3", "warmstart data tiny train.seed=3 builds it"),
        ("train gsm8k_smoke", "data.source is not set: add data.source=VALUE"),
    ],
)
def test_a_slip_is_one_line(words: str, message: str, user: Careless) -> None:
    assert message in user.only(*words.split())


def test_slips_that_come_together_are_told_together(user: Careless) -> None:
    head, *told = user.told("train", "tiny", "train.lrr=1", "train.epochs=0", "seed=3", "name=../x")
    assert head == "4 things have to be fixed:"
    assert [line.split()[-1] for line in told] == ["key)", "key)", "'../x'", "0"]
    assert "did you mean data.arithmetic.seed or data.seed or train.seed or eval.seed?" in told[1]


@pytest.mark.parametrize("key", ["name", "run.name", "data.name"])
@pytest.mark.parametrize(
    "name", ["''", "..", "../x", "a/b", "/x", ".x", "-x", "a..b", '"a\tb"', '"a\x7f"', "x" * 201]
)
def test_a_name_is_a_folders_name(key: str, name: str, user: Careless) -> None:
    said = user.only("train", "tiny", f"{key}={name}")
    assert said.startswith(f"{key} must be a name of 1 to 200 bytes, without /, .."), said


@pytest.mark.parametrize("name", ["x", "x" * 200, "lr 3", "a.b", "a-b_c", "été", "a+b,c@d"])
def test_other_names_stay_names(name: str) -> None:
    assert configs.load("tiny", [f"run.name='{name}'"]).run.name == name


def numbers() -> list[str]:
    values = dict(schema.recipe_keys())
    config = configs.load("tiny")
    keys = [key for key in values if isinstance(_at(config, key), int | float)]
    return [key for key in keys if not isinstance(_at(config, key), bool)]


def _at(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config[part]
    return config


def test_no_number_is_infinite_or_none(user: Careless) -> None:
    keys = numbers()
    assert {"train.lr", "train.epochs", "eval.top_p", "train.hang_minutes"} <= set(keys)
    for value in ("inf", "-inf", "nan"):
        head, *told = user.told("train", "tiny", *(f"{key}={value}" for key in keys))
        assert len(told) == len(keys), head
        assert all(key in line for key, line in zip(sorted(keys), sorted(told), strict=True))
    free = ["model.init.hidden_size", "reference.x.y", "verl.optim.override_optimizer_config.x"]
    words = ["eval.temperature=nan", "train.betas=[0.9,nan]", *(f"{key}=nan" for key in free)]
    for word in words:
        assert "must be a finite number, not nan" in user.only("train", "tiny", word)


def test_keys_of_verls_that_follow_from_ours_name_ours(user: Careless) -> None:
    assert {"verl.model.path", "verl.optim.lr", "verl.engine.seed"} <= mirrors().keys()
    for key, ours in mirrors().items():
        said = user.only("train", "tiny", f"{key}=1")
        assert said == f"{key} is set from {' and '.join(ours)}: change that instead"


RECIPES = {
    "no defaults": ("name: a\ntrain: {lr: 1.0}\n", "has no defaults: name the recipe that it"),
    "empty": ("", "is empty: name the recipe that it changes"),
    "only a comment": ("# nothing\n", "is empty"),
    "list": ("- a\n- b\n", "holds a list, and a recipe is a mapping"),
    "text": ("hello\n", "has no defaults"),
    "number": ("5\n", "cannot be read"),
    "parent": ("defaults: [tinny, _self_]\n", "defaults names 'tinny', which is not in recipes/"),
    "near parent": ("defaults: [tinny, _self_]\n", "did you mean tiny?"),
    "no self": ("defaults: [tiny]\n", "defaults must be [NAME, _self_], not ['tiny']"),
    "self first": ("defaults: [_self_, tiny]\n", "defaults must be [NAME, _self_]"),
    "text for defaults": ("defaults: tiny\n", "defaults must be a list of recipes"),
    "mapping in defaults": ("defaults: [{a: b}, _self_]\n", "defaults must be a list of recipes"),
    "bracket": ("defaults: [tiny, _self_]\ntrain: {lr: 1\n", "line 3, column 1: not valid YAML"),
    "tab": ("defaults: [tiny, _self_]\ntrain:\n\tlr: 1\n", "line 3, column 1: not valid YAML"),
    "twice": ("defaults: [tiny, _self_]\nname: a\nname: b\n", "line 3, column 1: not valid YAML"),
    "bytes": (b"defaults: [tiny, _self_]\nname: \xff\n", "cannot be read"),
    "key": ("defaults: [tiny, _self_]\ntrain: {lrr: 1}\n", "train.lrr; did you mean train.lr?"),
    "verl's": (
        "defaults: [tiny, _self_]\nverl: {optim: {lr: 1}}\n",
        "verl.optim.lr is set from train.lr: change that instead",
    ),
    "value": ("defaults: [tiny, _self_]\ntrain: {lr: fast}\n", "train.lr must be a number"),
    "missing": ("defaults: [base, _self_]\ndata: {source: x}\n", "model.path is not set"),
}


@pytest.mark.parametrize("case", RECIPES)
def test_a_broken_recipe_names_its_file(case: str, user: Careless) -> None:
    content, message = RECIPES[case]
    (user.folder / "my").mkdir()
    file = user.folder / "my" / "own.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    said = user.only("plan", "my/own.yaml")
    assert message in said
    assert said.startswith("my/own.yaml") or case in ("value", "missing"), said


def test_a_recipe_may_be_a_file_of_ones_own(
    user: Careless, capsys: pytest.CaptureFixture[str]
) -> None:
    (user.folder / "my").mkdir()
    file = user.folder / "my" / "tiny.yaml"  # the same name as its parent's
    file.write_text("defaults: [tiny, _self_]\ntrain: {lr: 1.0e-3}\n")
    config = configs.load("my/tiny.yaml", ["train.seed=3"])
    assert (config.train.lr, config.train.seed, config.train.batch_size) == (1e-3, 3, 30)
    file.rename(user.folder / "my" / "slow.yaml")
    config = configs.load("my/slow.yaml")
    assert (config.name, config.run.name, config.data.name) == ("slow", "slow", "slow")
    assert config.model.path == "runs/slow/base"
    assert configs.load("my/slow.yaml", ["name=x"]).run.name == "x"
    # The commands in a message give the file, not its name.
    said = user.only("train", "my/slow.yaml", "train.seed=3")
    assert "warmstart data my/slow.yaml train.seed=3 builds it" in said
    assert configs.load(str(configs.RECIPES / "tiny.yaml")).name == "tiny"
    # Only ours is the base of all.
    (user.folder / "my" / "base.yaml").write_text("defaults: [tiny, _self_]\n")
    assert configs.load("my/base.yaml").run.name == "base"
    ours = str(configs.RECIPES / "base.yaml")
    assert user.only("plan", ours).startswith(f"{ours} is what all recipes are built on: give")


def test_a_recipe_in_place_of_a_run_names_the_run(user: Careless) -> None:
    (user.folder / "own.yaml").write_text("defaults: [tiny, _self_]\nrun: {name: over128}\n")
    for verb in ("choose", "export", "rl", "status"):
        assert user.only(verb, "own.yaml") == "own.yaml is a recipe: give its run, runs/over128"
    (user.folder / "new.yaml").write_text("defaults: [tiny, _self_]\n")
    start = "new.yaml is a recipe: give its run, runs/new, which warmstart train new.yaml starts"
    assert user.only("report", "new.yaml") == start
    assert start in "\n".join(user.told("eval", "new.yaml"))
    assert user.only("plan", "new").endswith("DIR/NAME.yaml; did you mean new.yaml?")


def test_a_tilde_is_the_home_folder(user: Careless, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    (user.folder / "own.yaml").write_text(
        "defaults: [tiny, _self_]\nmodel: {path: ~/base}\nrun: {root: ~/runs}\n"
    )
    config = configs.load("own.yaml", ["data.source=~/rows.jsonl", "data.dir='~/data'"])
    assert (config.model.path, config.verl.model.path) == ("/home/ada/base", "/home/ada/base")
    assert (config.run.root, config.data.source) == ("/home/ada/runs", "/home/ada/rows.jsonl")
    assert config.verl.model.tokenizer_path == "/home/ada/data/own/tokenizer"
    assert configs.amend(config, ["eval.benchmarks=~/sets"]).eval.benchmarks == "/home/ada/sets"


def test_columns_on_the_command_line_are_added_to_the_recipes(user: Careless) -> None:
    (user.folder / "own.yaml").write_text(
        "defaults: [tiny, _self_]\ndata: {columns: {messages: chat}}\n"
    )
    texts = {"problem": "question", "solution": "steps", "answer": "result"}
    word = "data.columns={problem: question, solution: steps, answer: result}"
    assert configs.load("tiny", [word]).data.columns == texts
    added = configs.load("own.yaml", ["data.columns={answer: result}"]).data.columns
    assert added == {"messages": "chat", "answer": "result"}
    assert configs.load("own.yaml", ["data.columns.answer=result"]).data.columns == added
    assert configs.load("own.yaml", ["data.columns=null"]).data.columns is None


def test_a_nearest_name_is_told_whatever_its_case() -> None:
    assert nearest("TINY", ["tiny", "sft_4b"]) == "; did you mean tiny?"
    assert nearest("quite another", ["tiny", "sft_4b"]) == nearest("x", []) == ""


def test_only_the_first_rank_tells(user: Careless, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer.preflight import checks

    config = configs.load("tiny", ["device=cuda", f"data.dir={os.devnull}"])
    monkeypatch.setenv("SLURM_PROCID", "1")
    checks.before_training(config)
    monkeypatch.setenv("SLURM_PROCID", "0")
    with pytest.raises(Exception, match=r"(?s)2 things have to be fixed.*device=cuda needs a GPU"):
        checks.before_training(config)
