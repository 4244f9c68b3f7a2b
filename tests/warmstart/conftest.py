"""A folder as a person has it after `warmstart data tiny`, and the person who mistypes in it."""

import shutil
from pathlib import Path

import pytest

from common.files import write_json, write_jsonl
from tests.warmstart.mistakes import Careless, watch
from warmstart.cli import main

SMALL = "data.arithmetic.problems=100"
CONTEXT = 512


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny's dataset, a model and a benchmark set."""
    folder = tmp_path_factory.mktemp("built")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["data", "tiny", SMALL]) == 0
    model = folder / "model"
    shutil.copytree(folder / "data" / "tiny" / "tokenizer", model)
    config = {"model_type": "qwen3", "vocab_size": 640, "max_position_embeddings": CONTEXT}
    write_json(model / "config.json", config)
    (model / "model.safetensors").write_bytes(b"\0")
    problems = [{"id": f"p{i}", "problem": "1 + 1 = ?" * i, "answer": "2"} for i in (1, 9)]
    (folder / "sets").mkdir()
    write_jsonl(folder / "sets" / "sums.jsonl", problems)
    return folder


@pytest.fixture
def user(
    built: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Careless:
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    careless = watch(monkeypatch, capsys, tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # on a machine with GPUs too
    return careless
