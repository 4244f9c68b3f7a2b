"""Base models read into shards: the right values, tied or not, from any files; little host memory;
clear refusals.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Qwen3Config

from common.errors import UserError
from data_prep.tokenizer import tokenizers
from tests.conftest import ROOT
from trainer.engine import load_weights
from trainer.recipe import load as configs

SHAPE = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e4,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}
WIDE = SHAPE | {
    "vocab_size": 16_000,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 8,
}
"""Some 140 MB in fp32, of which the largest tensor is 33 MB."""


def saved(folder: Path, **changes: Any) -> Path:
    """Writes a random model in bf16, in several files."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(Qwen3Config(**(SHAPE | changes)), dtype=torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="100KB")
    return folder


def loaded(folder: Path) -> torch.nn.Module:
    """Builds the model on the meta device and loads it."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            Qwen3Config.from_pretrained(folder), dtype=torch.float32
        )
    load_weights.load(model, folder, "cpu")
    return model.eval()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("rope", [None, YARN], ids=["rope", "yarn"])
def test_a_loaded_model_computes_what_transformers_loads(
    tmp_path: Path, tied: bool, rope: dict | None
) -> None:
    folder = saved(tmp_path, tie_word_embeddings=tied, rope_parameters=rope)
    mine, theirs = loaded(folder), AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert len(list(folder.glob("*.safetensors"))) > 2
    assert (mine.lm_head.weight is mine.model.embed_tokens.weight) is tied
    ids = torch.arange(100)[None]
    with torch.no_grad():
        assert torch.equal(mine(ids).logits, theirs(ids).logits)


def test_a_head_in_the_files_of_a_tied_model_is_left_alone(tmp_path: Path) -> None:
    folder = saved(tmp_path, tie_word_embeddings=True)
    save_file({"lm_head.weight": torch.ones(320, 64)}, folder / "head.safetensors")
    model = loaded(folder)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert not (model.lm_head.weight == 1).all()


def test_files_of_another_model_are_refused_in_one_line(tmp_path: Path) -> None:
    folder = saved(tmp_path, tie_word_embeddings=True)
    name = "model.layers.1.mlp.up_proj.weight"
    file = next(file for file in folder.glob("*.safetensors") if name in load_file(file))
    tensors = load_file(file)
    save_file(tensors | {name: torch.zeros(96, 63)}, file)
    with pytest.raises(
        UserError, match=r"up_proj.weight has shape \[96, 63\], config.json says \[96, 64\]"
    ):
        loaded(folder)
    del tensors[name]
    save_file(tensors, file)
    with pytest.raises(UserError, match=f"lacks the tensor {name}"):
        loaded(folder)


def test_ranks_hold_their_shards_and_less_than_one_tensor_more(tmp_path: Path) -> None:
    """Stock verl holds the whole tied model on every rank."""
    worlds = [2, 4]
    for name, shape in (("small", SHAPE), ("large", WIDE)):
        folder = saved(tmp_path / name, **shape, tie_word_embeddings=True)
        config = configs.load("tiny", [f"model.path={folder}", f"data.dir={tmp_path}/data"])
        configs.write(config, tmp_path / f"{name}.yaml")
    tokenizers.trained(["some text"]).save_pretrained(str(Path(config.verl.model.tokenizer_path)))
    command = [
        sys.executable,
        "-m",
        "tests.trainer.engine.host_memory",
        str(tmp_path),
        *map(str, worlds),
    ]
    common = {"GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(command, env=os.environ | common, cwd=ROOT, check=True)
    largest = 4 * WIDE["vocab_size"] * WIDE["hidden_size"]
    for world in worlds:
        for rank in range(world):
            found = json.loads((tmp_path / str(world) / f"rank{rank}.json").read_text())
            assert found["shards"] * world > 4 * largest
            assert found["peak"] - found["shards"] < largest, (world, rank, found)
