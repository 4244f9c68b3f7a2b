"""From seeds to filters with a real model: a tiny random one, through Ray and vLLM as the evaluator
runs them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from common.records import Problem
from data_prep.build import Settings, Workers, build
from data_prep.source.source import Source
from data_prep.synth.local_model import Local
from tests.data_prep.synth.test_dataset import GENERATION, ROWS


@pytest.mark.slow
def test_a_model_that_has_learnt_nothing_fails_the_structure(
    benchmarks: Path, qwen3: Any, tmp_path: Path
) -> None:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from data_prep.tokenizer.prompt import BARE
    from eval.generation.generate import generate
    from eval.generation.settings import EngineSettings, Model, SamplingSettings

    shape = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    config = Qwen3Config(
        vocab_size=151_936,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=4_096,
        **shape,
    )
    Qwen3ForCausalLM(config).save_pretrained(tmp_path / "model")
    qwen3.save_pretrained(str(tmp_path / "model"))

    def answer(problems: Sequence[Problem], folder: Path) -> None:
        generate(
            problems,
            folder,
            Model(str(tmp_path / "model"), tmp_path / "model", "float32"),
            BARE,
            SamplingSettings(rollouts=1, temperature=1.0, top_p=1.0, max_tokens=48, seed=1),
            EngineSettings("cpu", 1, tensor_parallel=1, concurrency=8),
        )

    seeds = benchmarks / "gsm8k_train.jsonl"
    generation = replace(
        GENERATION, folder=tmp_path / "generated", seeds=seeds, backend="local", problems=12
    )
    settings = Settings(
        source=Source("synthetic", generation=generation, backend=Local(answer)),
        rows=ROWS,
        tokenizer="qwen3",
        model="",
        model_revision=None,
        benchmarks=benchmarks,
        decontaminate=("gsm8k_test",),
        train_rows=None,
        test_rows=2,
        max_bad_records=0,
    )
    with pytest.raises(
        UserError,
        match=r"0 rows are left.*\n +12  source records\n +12  .*structure: a part is missing",
    ):
        build(tmp_path / "data", settings, Workers(processes=1))
    manifest = json.loads((tmp_path / "generated" / "manifest.json").read_text())
    assert manifest["replies"] == {"answered": 12} and manifest["records"] == 12
    assert manifest["cut"] == 12 and manifest["account"] == {"output_tokens": 12 * 48}
