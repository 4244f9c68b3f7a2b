"""The average of a QLoRA's steps: of the merged weights, not of the adapters."""

from fractions import Fraction
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from safetensors.torch import load_file

from common.errors import UserError
from common.files import MANIFEST, read_json
from data_prep.tokenizer import tokenizers
from tests.trainer.export import averaged
from trainer.engine.adapters import TARGETS
from trainer.export import average_export
from trainer.export.average_recipe import AverageRecipe, label_of
from trainer.export.merge_qlora import A, B, Merged
from trainer.export.weights import Trained
from trainer.recipe import load as configs
from trainer.run import base_model
from trainer.run.folder import Run

STEPS = (4, 8, 12)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> DictConfig:
    """A run with the adapters of three steps."""
    root = tmp_path_factory.mktemp("qlora")
    config = configs.load("qlora_tiny", [f"run.root={root}/runs", f"data.dir={root}/data"])
    tokenizers.trained(["some text"]).save_pretrained(str(Path(config.verl.model.tokenizer_path)))
    base_model.materialise(config)
    rank = config.train.lora_rank
    for step in STEPS:
        chosen, adapters = torch.Generator().manual_seed(step), {}
        for name, tensor in averaged.base(config).items():
            module = name.removesuffix(".weight")
            if module.rpartition(".")[2] in TARGETS:
                outputs, inputs = tensor.shape
                for factor, shape in ((A, (rank, inputs)), (B, (outputs, rank))):
                    adapter = 0.05 * torch.randn(shape, generator=chosen)
                    adapters[f"{module}.{factor}.weight"] = adapter
        averaged.save(Run.of(config), step, adapters)
    return config


def recipe(members: str, toward: str | None = None) -> AverageRecipe:
    return AverageRecipe.parse(members, toward, STEPS)


def test_merged_weights_are_averaged_in_fp32(config: DictConfig) -> None:
    run, third = Run.of(config), Fraction(1, 3)
    chosen = recipe("4,8,12")
    folder = average_export.export(run, config, chosen, label_of(chosen, None))
    terms = []
    for step in STEPS:
        merged = Merged(config, Trained(run.checkpoint(step)))
        terms.append((third, {name: merged.read(name, torch.float32) for name in merged.sizes}))
    ours, theirs = load_file(folder / "model.safetensors"), averaged.mean(terms)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(terms[0][1][name], terms[0][1][name].bfloat16().float())
    assert read_json(folder / MANIFEST)["merge_base"] == config.export.merge_base


def test_exports_of_another_merge_base_are_no_members(config: DictConfig) -> None:
    run = Run.of(config)
    averaged.exported(run, config, 4)
    other = configs.amend(config, ["export.merge_base=bf16"])
    chosen = recipe("4,8", "base=0.3")
    with pytest.raises(UserError, match=r"step_4 was merged with export.merge_base=nf4, not bf16"):
        average_export.export(run, other, chosen, label_of(chosen, None))
    folder = average_export.export(run, config, chosen, label_of(chosen, None))
    with pytest.raises(UserError, match=r"was merged with export.merge_base=nf4, not bf16"):
        average_export.export(run, other, chosen, label_of(chosen, None))
    sources = [m["source"] for m in read_json(folder / MANIFEST)["average"]["members"]]
    assert sources == ["export", "checkpoint"]
