"""The export of an RL checkpoint: verl's weights, and else the files of SFT's export."""

from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from safetensors.torch import load_file

from common.errors import UserError
from common.files import MANIFEST, read_json, verify, write_json
from data_prep.tokenizer import tokenizers
from eval import evaluate
from tests.trainer.export.rl_checkpoints import HASH, LABEL, STEP, saved, tiny
from trainer.export.export import write_model
from trainer.export.rl_export import export
from trainer.export.weights import Saved
from trainer.run.folder import Run
from trainer.run.model_label import ModelLabel
from trainer.run.rl_start import RlStart


@pytest.fixture
def config(tmp_path: Path) -> DictConfig:
    return tiny(tmp_path)


@pytest.fixture
def start(config: DictConfig) -> RlStart:
    return saved(config)


def test_it_has_verls_weights_and_else_the_files_of_sft(config: DictConfig, start: RlStart) -> None:
    from transformers import AutoModelForCausalLM

    run, tokenizer = Run.of(config), tokenizers.load(config.verl.model.tokenizer_path)
    sft = run.export(STEP)
    sft.mkdir(parents=True)
    write_model(config, tokenizer, Saved(Path(config.model.path)), sft)
    write_json(sft / MANIFEST, {"step": STEP, "dataset": "d" * 64})
    folder = export(run, config, LABEL)
    assert folder == run.root / "export" / f"rl_20-{HASH}"
    verify(folder)
    names = {p.name for p in folder.iterdir()}
    assert names == {p.name for p in sft.iterdir()}
    for name in names - {"model.safetensors", MANIFEST}:
        assert (folder / name).read_bytes() == (sft / name).read_bytes(), name
    ends = read_json(folder / "generation_config.json")["eos_token_id"]
    assert tokenizer.convert_ids_to_tokens(ends) == ["<|im_end|>", "<|endoftext|>"]
    assert "Think." in (folder / "chat_template.jinja").read_text()
    theirs = load_file(next(start.weights(20).glob("*.safetensors")))
    ours = load_file(folder / "model.safetensors")
    assert ours.keys() == theirs.keys() - {"lm_head.weight"}
    for name, tensor in ours.items():
        assert tensor.dtype == torch.bfloat16 and torch.equal(tensor, theirs[name].bfloat16())
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert torch.equal(model.lm_head.weight, ours["model.embed_tokens.weight"])


def test_its_manifest_says_where_it_comes_from(config: DictConfig, start: RlStart) -> None:
    run = Run.of(config)
    made = read_json(export(run, config, LABEL) / MANIFEST)
    assert (made["step"], made["rl"]["step"]) == (STEP, 20)
    assert made["rl"]["start"] == start.root.name and made["rl"]["problems"] == 120
    assert len(made["dataset"]) == len(made["rl"]["manifest"]) == 64
    assert made["versions"]["torch"] and made["git"] and made["parameters"] > 100_000
    assert run.exports == []  # not a step of SFT


def test_what_is_exported_stays_when_verl_deletes_the_checkpoint(
    config: DictConfig, start: RlStart
) -> None:
    run = Run.of(config)
    folder = export(run, config, LABEL)
    before = (folder / MANIFEST).read_bytes()
    start.weights(20).rename(start.weights(20).with_name("gone"))
    assert export(run, config, LABEL) == folder and (folder / MANIFEST).read_bytes() == before
    planned = evaluate.plan(config, run, LABEL)
    assert planned.folder.name.startswith(f"heldout@rl_20-{HASH}-")
    assert planned.model.path == str(folder)


def test_refusals(config: DictConfig, start: RlStart) -> None:
    run = Run.of(config)
    with pytest.raises(UserError, match=r"no export of rl_20-0123abcd.*warmstart export .* rl-20-"):
        evaluate.plan(config, run, LABEL)
    with pytest.raises(UserError, match=rf"of rl-30-{HASH} any more.*rl-10-{HASH}, rl-20-{HASH}"):
        export(run, config, ModelLabel(rl=30, start=HASH))
    with pytest.raises(UserError, match=r"global_step_10.* has no weights: .*hf_model"):
        export(run, config, ModelLabel(rl=10, start=HASH))
    run.export(LABEL).mkdir(parents=True)
    with pytest.raises(UserError, match="is not a complete export"):
        export(run, config, LABEL)
    run.export(LABEL).rmdir()
    shape = start.weights(20) / "config.json"
    write_json(shape, read_json(shape) | {"hidden_size": 96})
    with pytest.raises(UserError, match=r"hidden_size 96 instead of 128.*another actor"):
        export(run, config, LABEL)
    assert not run.export(LABEL).exists()
