"""The recipe and the run of an evaluation of three problems, whose model nobody loads."""

import json
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from trainer.run.folder import Run


@pytest.fixture
def config(tmp_path: Path) -> DictConfig:
    for folder in ("model", "data/toy/tokenizer", "bench"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "model/config.json").write_text("{}")
    (tmp_path / "data/toy/tokenizer/tokenizer.json").write_text("{}")
    lines = [{"id": f"p/{i}", "problem": "?", "answer": str(i)} for i in range(3)]
    (tmp_path / "bench/add.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return OmegaConf.create(
        {
            "name": "toy",
            "device": "cpu",
            "model": {"path": str(tmp_path / "model"), "revision": None, "context": None},
            "verl": {"model": {"tokenizer_path": str(tmp_path / "data/toy/tokenizer")}},
            "data": {
                "name": "toy",
                "dir": str(tmp_path / "data"),
                "answer_style": "boxed",
                "prompt": "{problem}",
                "system": None,
            },
            "eval": {
                "benchmarks": str(tmp_path / "bench"),
                "sets": ["add"],
                "limit": None,
                "rollouts": 2,
                "temperature": 0.6,
                "top_p": 0.95,
                "max_tokens": 8,
                "seed": 0,
                "dtype": "auto",
                "prompt": None,
                "system": None,
                "prefill": "",
                "extractor": None,
                "engines": 1,
                "tensor_parallel": 1,
                "concurrency": 4,
            },
        }
    )


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "runs/toy")
