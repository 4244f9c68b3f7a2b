"""The planner's inputs: the base model's shape, the row lengths and the cluster, as known before
training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist

import numpy as np
from omegaconf import DictConfig

from common.errors import UserError
from common.files import read_json
from data_prep.output.folder import dataset_folder, token_file
from data_prep.tokenizer import token_files as tokens
from trainer.batching import sampler
from trainer.batching.flops import Shape
from trainer.planning.cluster import Cluster
from trainer.planning.hardware import GPUS
from trainer.planning.memory import GIB

_4B = Shape(36, 2560, 9728, 32, 8, 128, 151_936, tied=True)
_8B = Shape(36, 4096, 12288, 32, 8, 128, 151_936, tied=False)
KNOWN = {
    "Qwen/Qwen3-4B-Base": _4B,
    "Qwen/Qwen3-4B": _4B,
    "Qwen/Qwen3-8B-Base": _8B,
    "Qwen/Qwen3-8B": _8B,
}
"""Shapes of hub models (their config.json), so that planning needs no download."""
VOCABULARIES = {"qwen3": 151_680, "trained": 640}
"""Number of embedding rows of a model.init, by model.tokenizer."""
DEFAULTS = {"num_key_value_heads": 32, "head_dim": 128, "tie_word_embeddings": False}
"""Defaults of transformers' Qwen3Config, for a model.init without these keys."""

MEDIAN_CHARACTERS, P99_CHARACTERS, CHARACTERS_A_TOKEN = 12_980, 50_593, 3
"""Characters per row of the published 45,000 rows; characters of long-think math per token of
Qwen3's vocabulary.
"""
ASSUMED_ROWS = 45_000


@dataclass(frozen=True)
class Lengths:
    """Number of tokens of every row, and the source of these lengths."""

    tokens: np.ndarray
    source: str


def shape_of(config: DictConfig) -> Shape:
    """Returns the trained model's shape: of the folder at model.path, of model.init, or of a known
    hub model, with the recipe's adapters.

    Raises UserError for any other model, and for a config.json of another model family.
    """
    return replace(_base_shape(config), lora_rank=config.train.lora_rank or 0)


def total_steps(config: DictConfig, rows: int) -> int:
    """Returns the optimizer steps of a run over a dataset of ``rows`` rows."""
    total = config.train.epochs * sampler.steps_per_epoch(rows, config.train.batch_size)
    return min(total, config.train.max_steps or total)


def _base_shape(config: DictConfig) -> Shape:
    path, init = config.model.path, config.model.init
    if (file := Path(path) / "config.json").exists():
        try:
            return Shape.of(read_json(file))
        except KeyError as e:
            raise UserError(
                f"{file} has no {e}: only models of the Qwen3 family are supported"
            ) from e
    if init is not None:
        return Shape.of(
            DEFAULTS | {"vocab_size": VOCABULARIES[config.model.tokenizer]} | dict(init)
        )
    if path not in KNOWN:
        raise UserError(
            f"the shape of {path} is unknown (known: {', '.join(KNOWN)}): "
            "set model.path to a folder that has its config.json"
        )
    return KNOWN[path]


def lengths_of(config: DictConfig) -> Lengths:
    """Returns the row lengths of the dataset if it is built, else the assumed ones.

    Raises UserError as ``assumed_lengths`` does.
    """
    path = token_file(dataset_folder(config), "train")
    if path.exists():
        return Lengths(
            tokens.read(path).column("length").to_numpy(), f"dataset {path.parent.parent}"
        )
    return assumed_lengths(config)


def assumed_lengths(config: DictConfig) -> Lengths:
    """Returns evenly spaced quantiles of the published lognormal distribution, cut off at
    data.max_length.

    Raises UserError when data.max_length cuts off more than half: such a recipe is not about
    long-think math.
    """
    normal, data = NormalDist(), config.data
    sigma = math.log(P99_CHARACTERS / MEDIAN_CHARACTERS) / normal.inv_cdf(0.99)
    median = MEDIAN_CHARACTERS / CHARACTERS_A_TOKEN
    kept = normal.cdf(math.log(data.max_length / median) / sigma)
    if kept < 0.5:
        raise UserError(
            f"dataset {data.name} is not built, and the lengths assumed without it (long-think "
            f"math) are beyond data.max_length={data.max_length}: warmstart data {config.name}"
        )
    rows = data.train_rows or ASSUMED_ROWS
    places = np.array([normal.inv_cdf(kept * (i + 0.5) / rows) for i in range(rows)])
    return Lengths(
        (median * np.exp(sigma * places)).astype(np.int64),
        f"ASSUMED, because no dataset is built: lognormal, median {MEDIAN_CHARACTERS:,} and p99 "
        f"{P99_CHARACTERS:,} characters, {CHARACTERS_A_TOKEN} per token",
    )


def cluster_of(config: DictConfig) -> Cluster:
    """Returns the recipe's cluster; its own GPU memory and peak, if set, override the table's."""
    chosen, gpu = config.cluster, GPUS[config.cluster.gpu]
    if chosen.gpu_memory_gib is not None:
        gpu = replace(gpu, memory=chosen.gpu_memory_gib * GIB)
    if chosen.gpu_peak_tflops is not None:
        gpu = replace(gpu, bf16_flops=chosen.gpu_peak_tflops * 1e12)
    return Cluster(gpu, chosen.nodes, chosen.gpus_per_node, chosen.network_gbits * 1e9 / 8)
