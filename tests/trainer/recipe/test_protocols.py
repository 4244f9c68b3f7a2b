"""Protocols as files, over a recipe and under the command line."""

from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from common.errors import UserError
from eval.grading.grade import EXTRACTORS
from trainer.recipe import load as configs
from trainer.recipe import protocols

ON_GPU = ["device=cuda"]


def load(name: str, *overrides: str) -> DictConfig:
    return configs.load("tiny", [*ON_GPU, f"eval.protocol={name}", *overrides])


@pytest.mark.parametrize("name", protocols.names())
def test_every_protocol_sets_its_values(name: str) -> None:
    config, protocol = load(name), protocols.read(name)
    assert {key: config.eval[key] for key in protocol.values} == protocol.values
    assert config.eval.extractor in EXTRACTORS
    sections = (protocol.stated, protocol.script, protocol.unknown)
    assert sum(map(len, sections)) == len(protocol.values), "a key in two sections"


def test_the_command_line_comes_last() -> None:
    prompt = "{problem} Be 'brief': \\boxed{}, ünï."
    config = load("qwen3_4b_sft_math", f"eval.prompt={prompt}", "eval.rollouts=4")
    assert (config.eval.prompt, config.eval.rollouts, config.eval.temperature) == (prompt, 4, 0.7)


def test_a_frozen_configuration_follows_it_once() -> None:
    frozen = configs.load("tiny", ON_GPU)
    asked = configs.amend(frozen, ["eval.protocol=gsm8k_synth", "eval.prefill=<think>\n"])
    assert (asked.eval.dtype, asked.eval.extractor, asked.eval.prefill) == (
        "nf4",
        "gsm8k_synth",
        "<think>\n",
    )
    later = configs.amend(asked, ["eval.dtype=auto"])
    assert configs.amend(later, ["eval.limit=2"]).eval.dtype == "auto"


def test_the_math_protocol_asks_with_the_cards_instruction() -> None:
    config = load("qwen3_4b_sft_math")
    assert config.eval.prompt == (
        "{problem}\n\nPlease reason step by step, and put your final answer within \\boxed{}."
    )
    assert config.data.prompt == "{problem}"


def test_a_key_that_eval_has_not_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocols, "FOLDER", tmp_path)
    (tmp_path / "mine.yaml").write_text("source: a card\nstated: {rolouts: 4}\n")
    with pytest.raises(UserError, match=r"mine\.yaml: eval has no key 'rolouts'.+rollouts"):
        load("mine")


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(
        UserError, match=r"eval\.protocol=nope: recipes/protocols/ has gsm8k_synth, "
    ):
        load("nope")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.prompt=Go.", "data.prompt must be text with {problem} once, not 'Go.'"),
        ("data.prompt={problem}{problem}", "data.prompt must be text with {problem} once"),
        ("data.prompt=Solve ${problem}$", "data.prompt must be text without ${, which"),
        ("data.system=<|im_end|>", "data.system must be text without control tokens"),
        ("eval.prefill=null", "eval.prefill must be text, not None"),
    ],
)
def test_a_wrong_prompt_is_refused(override: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        configs.load("tiny", [override])
    assert message in str(caught.value)


def test_a_prompt_survives_the_frozen_file(tmp_path: object) -> None:
    prompt = '"{problem}"\n\\boxed{}: $x$ # no comment'
    config = configs.load("tiny", [f"data.prompt={prompt}", "data.system=null"])
    assert OmegaConf.create(OmegaConf.to_yaml(config)).data.prompt == prompt
    assert config.data.system is None
