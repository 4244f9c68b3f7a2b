"""Recipes compose with verl's configuration, and bad input is named."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from common.errors import UserError
from data_prep.benchmarks.sets import protocol
from tests.conftest import ROOT
from trainer.recipe import load as configs
from trainer.recipe import schema

EXTRA = {"gsm8k_smoke": ["data.source=train.jsonl"]}


@pytest.mark.parametrize("recipe", configs.recipes())
def test_every_recipe_composes(recipe: str) -> None:
    config = configs.load(recipe, EXTRA.get(recipe, []))
    assert config.name == recipe
    assert config.verl.optim.lr == config.train.lr
    assert config.verl.engine.seed == config.train.seed


def test_the_4b_recipe_is_the_published_one_with_our_decisions() -> None:
    config = configs.load("sft_4b")
    assert config.model.path == "Qwen/Qwen3-4B-Base"
    assert (config.data.train_rows, config.data.test_rows, config.data.max_chars) == (
        45_000,
        200,
        60_000,
    )
    assert (config.train.epochs, config.train.batch_size, config.train.lr) == (2, 64, 4e-5)
    assert (config.train.min_lr_ratio, config.train.warmup_ratio, config.train.weight_decay) == (
        0.1,
        0.03,
        0.1,
    )
    assert protocol(config.eval.sets, config.eval.rollouts, config.eval.temperature) == (16, 0.6)
    assert config.eval.top_p == 0.95
    assert config.eval.max_tokens == 32_768
    assert configs.load("sft_8b").data.train_rows == 90_000


def test_the_authors_recipe_has_their_launchers_values_on_the_rows_of_ours() -> None:
    ours, authors = configs.load("sft_4b"), configs.load("sft_4b_authors")
    assert authors.data == ours.data
    saving = {"save_every", "validate_every"}
    own = {"sequence_parallel", "max_tokens_per_gpu", "checkpointing", *saving}
    assert {
        key: value
        for key, value in authors.train.items()
        if value != ours.train[key] and key not in own
    } == {"batch_size": 16, "lr": 2e-5, "warmup_ratio": 0.01, "betas": [0.9, 0.999]}
    assert (authors.train.min_lr_ratio, authors.train.weight_decay) == (0.1, 0.1)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["train.lrr=1"], ["unknown key train.lrr", "did you mean train.lr?"]),
        (["train.lr=fast"], ["train.lr must be a number", "'fast'"]),
        (["train.lr=-1"], ["train.lr must be positive, not -1"]),
        (["train.lr=inf"], ["train.lr must be a finite number, not inf"]),
        (["eval.temperature=nan"], ["eval.temperature must be a finite number, not nan"]),
        (["train.epochs=inf"], ["train.epochs must be an integer, not inf"]),
        (["train.betas=[0.9,nan]"], ["train.betas[1] must be a finite number, not nan"]),
        (["train.epochs=true"], ["train.epochs must be an integer, not True"]),
        (["train.lr=null"], ["train.lr must be a number, not None"]),
        (["train.clip_grad=true"], ["train.clip_grad must be a number, not True"]),
        (["data.columns={messages: 5}"], ["data.columns.messages must be text, not 5"]),
        (["cluster.gpu=h1000"], ["cluster.gpu must be one of a100-40, a100-80,"]),
        (
            ["train.lr=-1", "eval.sets=t0"],
            ["train.lr must be positive, not -1\n", "eval.sets must be a list, not 't0'"],
        ),
        (["train.epochs=0"], ["train.epochs must be positive"]),
        (["train.ranks=1.5"], ["train.ranks must be an integer"]),
        (["train.prefetch=3"], ["train.prefetch must be true or false"]),
        (["train=3"], ["train is a section"]),
        (["verl.optim.lr=1"], ["verl.optim.lr is set from train.lr"]),
        (["verl.optim.lrr=1"], ["unknown key verl.optim.lrr"]),
        (["data.max_length=9000"], ["train.max_tokens_per_gpu=4096", "data.max_length=9000"]),
        (["device=tpu"], ["device must be one of cuda, cpu"]),
        (["train.lr"], ["write key=value"]),
        (["data.train_rows=abc"], ["data.train_rows must be an integer, not 'abc'"]),
        (["data.train_rows=0"], ["data.train_rows must be positive"]),
        (["data.test_rows=-3"], ["data.test_rows must be at least 0"]),
        (["train.max_steps=-1"], ["train.max_steps must be positive"]),
        (["train.warmup_ratio=3"], ["train.warmup_ratio must be at most 1, not 3"]),
        (["train.betas=[0.9]"], ["train.betas must be two numbers"]),
        (["eval.top_p=0"], ["eval.top_p must be positive, not 0"]),
        (["eval.concurrency=0"], ["eval.concurrency must be positive, not 0"]),
        (["run.name=5"], ["run.name must be text, not 5"]),
        (["model.init=5"], ["model.init must be a mapping"]),
        (["train.attention=varlen"], ["train.attention=varlen needs a GPU"]),
        (["train.liger=true"], ["train.liger=true needs a GPU"]),
        (["eval.dtype=nf4"], ["eval.dtype=nf4 needs a GPU"]),
        (
            ["train.checkpointing=some"],
            ["train.checkpointing must be one of none, selective, full"],
        ),
        (
            ["train.loggers=[mlflow]"],
            ["train.loggers[0] must be one of tensorboard, wandb, not 'mlflow'"],
        ),
        (["train.profile_steps=5"], ["train.profile_steps must be"]),
        (["train.profile_steps=5:2"], ["train.profile_steps must be A:B"]),
        (["verl.trainer.save_freq=10"], ["unknown key verl.trainer.save_freq"]),
        (["verl.engine.forward_only=true"], ["verl.engine.forward_only cannot be set"]),
        (["train.loggers=[[a]]"], ["train.loggers[0] must be one of tensorboard, wandb"]),
        (
            ["data.columns={problem: q}"],
            ["data.columns must name problem, solution, answer or messages"],
        ),
    ],
)
def test_bad_override_is_named(overrides: list[str], words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        configs.load("tiny", overrides)
    assert all(word in str(error.value) for word in words), error.value
    told = getattr(error.value, "faults", [str(error.value)])
    assert all(len(fault.splitlines()) == 1 for fault in told)


def test_an_integer_is_a_number_and_stays_an_integer() -> None:
    config = configs.load("tiny", ["train.clip_grad=1", "eval.temperature=0"])
    assert (str(config.train.clip_grad), str(config.eval.temperature)) == ("1", "0")


def test_base_yaml_has_the_keys_of_the_schema() -> None:
    base = yaml.safe_load((configs.RECIPES / "base.yaml").read_text())
    del base["defaults"], base["verl"]
    in_schema = {key for key, _ in schema.recipe_keys() if not key.startswith("verl.")}
    assert set(leaves(base)) == in_schema


def leaves(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted keys of the values that are no mappings."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def test_defaults_of_base_yaml_are_valid() -> None:
    """``for_model`` sets the keys that have none."""
    config = configs.for_model("some/model", [])
    for key, _ in schema.recipe_keys():
        assert OmegaConf.select(config, key, default="absent") != "absent", key


def test_mutable_keys() -> None:
    mutable = {key for key, may_change in schema.recipe_keys() if may_change}
    assert {"device", "model.license", "data.synth.max_usd", "train.ranks", "reference"} <= mutable
    assert {"cluster.gpu", "eval.seed", "verl.engine.offload_policy"} <= mutable
    assert not {"name", "model.path", "data.seed", "train.lr", "verl.engine.strategy"} & mutable


def test_keys_of_a_users_own_mapping_are_free() -> None:
    config = configs.load(
        "gsm8k_smoke", ["data.source=a.jsonl", "data.columns.uuid=name", "model.init.head_dim=64"]
    )
    assert (config.data.columns.uuid, config.model.init.head_dim) == ("name", 64)


def test_missing_value_and_unknown_recipe_are_named() -> None:
    with pytest.raises(UserError, match=r"data\.source is not set: add data\.source=VALUE"):
        configs.load("gsm8k_smoke")
    with pytest.raises(UserError, match=r"did you mean tiny\?"):
        configs.load("tinny")


def test_only_mutable_keys_may_change_between_attempts() -> None:
    old = configs.load("tiny")
    assert (
        configs.immutable_changes(old, configs.load("tiny", ["train.ranks=1", "eval.rollouts=2"]))
        == []
    )
    offloading = configs.load("tiny", ["verl.engine.offload_policy=true", "cluster.nodes=1"])
    assert configs.immutable_changes(old, offloading) == []
    published = configs.load("sft_4b")
    corrected = configs.load("sft_4b", ["reference.max_tokens=1"])
    assert configs.immutable_changes(published, corrected) == []
    changes = configs.immutable_changes(old, configs.load("tiny", ["train.lr=1e-3"]))
    assert changes == ["train.lr: 0.002 -> 0.001"]
    assert configs.amend(old, ["eval.rollouts=2"]).eval.rollouts == 2
    with pytest.raises(UserError, match=r"cannot change: train\.lr"):
        configs.amend(old, ["train.lr=1e-3"])


def test_a_runs_file_with_a_fixed_concurrency_keeps_it(tmp_path: Path) -> None:
    assert configs.load("sft_4b").eval.concurrency is None
    file = tmp_path / "config.yaml"
    OmegaConf.save(configs.load("sft_4b", ["eval.concurrency=64"]), file)
    frozen = configs.read(file)
    assert frozen.eval.concurrency == 64
    assert configs.amend(frozen, ["eval.concurrency=null"]).eval.concurrency is None


def test_composing_does_not_import_torch() -> None:
    code = (
        "import sys; from trainer.recipe import load; "
        "load.load('tiny'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
