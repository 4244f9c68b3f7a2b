"""The random model, its tokenizer and the rows, written once for all cases of a check."""

from __future__ import annotations

import re
import time
from typing import Any

import numpy as np
import torch

from common.files import write_json
from common.records import Tokens
from tests.gpu.bench import Bench
from tests.gpu.setting import SEED
from tests.token_rows import write_tokens

PROMPT = 100
"""Tokens without loss at the start of a row."""
INDEX = "model.safetensors.index.json"


def write(bench: Bench) -> None:
    """Writes a file of weights per layer, and for each number of layers that a load trains a folder
    of links to them.

    Weights are bf16, so that every contender starts from the same ones.
    """
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, Qwen3Config

    from data_prep.tokenizer import tokenizers

    begin = time.monotonic()
    setting, s = bench.setting, bench.setting.shape
    config = Qwen3Config(
        num_hidden_layers=s.layers,
        hidden_size=s.hidden,
        vocab_size=s.vocabulary,
        intermediate_size=s.intermediate,
        num_attention_heads=s.heads,
        num_key_value_heads=s.kv_heads,
        head_dim=s.head_dim,
        tie_word_embeddings=s.tied,
        max_position_embeddings=40_960,
        architectures=["Qwen3ForCausalLM"],
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shapes = {
        name: tensor.shape for name, tensor in model.named_parameters()
    }  # a tied head is there once
    generator = torch.Generator(setting.device).manual_seed(SEED)
    files: dict[str, str] = {}
    whole = bench.model(s.layers)
    whole.mkdir()
    for file in sorted({_file(name) for name in shapes}):
        names = [name for name in shapes if _file(name) == file]
        made = {name: _weight(shapes[name], generator, setting.spread) for name in names}
        save_file(
            {name: weight.cpu() for name, weight in made.items()},
            whole / file,
            metadata={"format": "pt"},
        )
        files |= dict.fromkeys(names, file)
    words = tokenizers.trained(["some text"])
    for layers in sorted({s.layers, *(load.layers for load in setting.loads.values())}):
        folder = bench.model(layers)
        folder.mkdir(exist_ok=True)
        config.num_hidden_layers, config.layer_types = layers, ["full_attention"] * layers
        config.dtype = "bfloat16"
        config.save_pretrained(folder)
        words.save_pretrained(str(folder))
        held = {name: file for name, file in files.items() if _layer(name) < layers}
        for file in set(held.values()):
            if not (folder / file).exists():
                (folder / file).symlink_to(whole / file)
        write_json(folder / INDEX, {"metadata": {}, "weight_map": held})
    for name in setting.loads:
        _rows(bench, name, words)
    size = sum(path.stat().st_size for path in whole.glob("*.safetensors"))
    bench.figure("written", "GB", size / 1e9, note=f"{s.layers} layers")
    bench.figure("time to write", "s", time.monotonic() - begin)


def _rows(bench: Bench, name: str, words: Any) -> None:
    """Random tokens in rows of the load's lengths, enough for all steps of a training case."""
    folder, load = bench.data(name), bench.setting.loads[name]
    generator = np.random.default_rng(SEED)
    made = (
        Tokens(
            id=str(i),
            input_ids=generator.integers(0, bench.setting.shape.vocabulary, n, dtype=np.int32),
            prompt_len=min(PROMPT, n // 2),
            length=n,
        )
        for i, n in enumerate(load.lengths(bench.setting.steps))
    )
    write_tokens(folder / "tokens" / "train.arrow", made)
    words.save_pretrained(str(folder / "tokenizer"))


def _layer(name: str) -> int:
    """The layer that a tensor is in; -1 for what every model has."""
    found = re.search(r"\.layers\.(\d+)\.", name)
    return int(found[1]) if found else -1


def _file(name: str) -> str:
    layer = _layer(name)
    return "rest.safetensors" if layer < 0 else f"layer-{layer:02}.safetensors"


def _weight(shape: torch.Size, generator: torch.Generator, spread: float) -> torch.Tensor:
    """Normal weights, ones for a norm, as transformers makes them."""
    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.bfloat16)
    weight = torch.empty(shape, dtype=torch.bfloat16, device=generator.device)
    return weight.normal_(0.0, spread, generator=generator)
