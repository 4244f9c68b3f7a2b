"""An export is read by transformers 4 as by the version that wrote it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoTokenizer, Qwen3Config

from common.files import read_json
from tests.conftest import ROOT
from trainer.export.compatibility import widen

YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e6,
    "factor": 4.0,
    "original_max_position_embeddings": 128,
}
READ = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, __version__
folder = sys.argv[1]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
turns = [{"role": "user", "content": "What is 12 + 30?"}]
ids = tokenizer("What is 12 + 30? <think>\\n42</think>").input_ids
with torch.no_grad():
    logits = model(torch.tensor([ids * 8])).logits[0, -1]
print(json.dumps({
    "version": __version__,
    "tokenizer": type(tokenizer).__name__,
    "ids": ids,
    "chat": tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True),
    "eos": GenerationConfig.from_pretrained(folder).eos_token_id,
    "ends": [tokenizer.eos_token, tokenizer.pad_token],
    "logits": logits.tolist(),
}))
"""


@pytest.mark.parametrize("rope", [{"rope_type": "default", "rope_theta": 5e5}, YARN])
def test_ropes_settings_stand_where_either_version_looks(
    tmp_path: Path, rope: dict[str, Any]
) -> None:
    Qwen3Config(rope_parameters=dict(rope), max_position_embeddings=512).save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "TokenizersBackend"}')
    before = AutoConfig.from_pretrained(tmp_path).rope_parameters
    widen(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).rope_parameters == before
    written = read_json(tmp_path / "config.json")
    assert written["rope_theta"] == rope["rope_theta"]
    if rope["rope_type"] == "yarn":
        assert written["rope_scaling"]["factor"] == 4.0
        assert "rope_theta" not in written["rope_scaling"]
    else:
        assert "rope_scaling" not in written


def test_the_export_says_its_theta_and_a_known_tokenizer(export: Path) -> None:
    assert read_json(export / "config.json")["rope_theta"] == 500_000
    tokenizer = AutoTokenizer.from_pretrained(export)
    written = read_json(export / "tokenizer_config.json")
    assert written["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert tokenizer.eos_token == "<|im_end|>"


@pytest.mark.slow
def test_transformers_4_reads_the_same_model(export: Path, tmp_path: Path) -> None:
    """In the same Python, with version 4.57 and its companions before ours on the path."""
    packages = ["transformers==4.57.6", "huggingface-hub<1", "tokenizers>=0.22,<0.23"]
    subprocess.run(
        [
            str(Path(sys.executable).with_name("uv")),
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            f"--target={tmp_path / 'old'}",
            f"--python={sys.executable}",
            *packages,
        ],
        check=True,
    )

    def read(path: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", READ, str(export)],
            env=os.environ | {"PYTHONPATH": path},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    ours, theirs = read(str(ROOT)), read(str(tmp_path / "old"))
    assert ours.pop("version").startswith("5.") and theirs.pop("version") == "4.57.6"
    assert theirs.pop("tokenizer") == "PreTrainedTokenizerFast" and ours.pop("tokenizer")
    assert theirs.pop("logits") == pytest.approx(ours.pop("logits"), abs=1e-4)
    assert theirs == ours
