"""A run with compiled layers and loss and the fused optimizer: one that is interrupted repeats what
one that is not does, bit for bit.
"""

import os
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.conftest import RECIPE, lines
from tests.trainer.loop.tiny_runs import train

SETTINGS = [
    *(word for word in RECIPE if "max_steps" not in word),
    "train.max_steps=6",
    "train.save_every=3",
    "train.keep_last=4",
    "train.compile=true",
    "train.fused_optimizer=true",
    "train.checkpointing=selective",
]


def test_a_compiled_run_resumes_bit_for_bit(short_run: Path, tmp_path: Path) -> None:
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("COMPILED RUNS ARE NOT CHECKED HERE: they need a C++ compiler, install g++")
    places = [f"data.dir={short_run.parent.parent}/data", f"run.root={tmp_path}/runs"]
    run, codes = train([*SETTINGS, *places])
    assert codes == [0]
    whole, saved = lines(run.attempts[-1].metrics), _tensors(run.checkpoint(6))
    shutil.rmtree(run.checkpoint(6))
    _, codes = train([*SETTINGS, *places])
    assert codes == [0]
    again = lines(run.attempts[-1].metrics)
    assert [step["step"] for step in again] == [4, 5, 6]
    for key in ("loss", "grad_norm", "entropy", "token_accuracy"):
        assert [step[key] for step in again] == [step[key] for step in whole[3:]]
    found = _tensors(run.checkpoint(6))
    assert found.keys() == saved.keys()
    assert all(found[name].equal(saved[name]) for name in saved)


def _tensors(folder: Path) -> dict:
    files = sorted(folder.rglob("*.safetensors"))
    assert files
    return {f"{file.name}/{k}": v for file in files for k, v in load_file(file).items()}
