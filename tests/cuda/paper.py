"""A CUDA device of paper, in this process: its library, a process group whose other ranks do
nothing, a base model.

The library (``paper/runtime.c``) answers for CUDA's runtime and driver, so that torch.cuda and
autograd run as they are; fake tensors (torch's FakeTensorMode) have shapes, types and devices, and
no values.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.cuda.cases import Case

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(__file__).with_name("paper") / "runtime.c"
COMPILER = shutil.which("gcc")


def build(folder: Path) -> Path:
    """Compiles the library and returns its path. The headers are those of torch's CUDA wheels."""
    library = folder / "paper.so"
    headers = [
        _folder("nvidia.cu13") / "include",
        _folder("triton") / "backends" / "nvidia" / "include",
    ]
    include = [word for place in headers for word in ("-I", str(place))]
    name = ["-Wl,-soname,libcuda.so.1"]  # torch opens the driver by this name
    subprocess.run(
        ["gcc", "-shared", "-fPIC", *name, *include, str(SOURCE), "-o", str(library)], check=True
    )
    return library


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations)))


def environment(library: Path) -> dict[str, str]:
    """Variables of a process that sees the device, as rank 0."""
    return {
        "LD_PRELOAD": str(library),
        "CUDA_VISIBLE_DEVICES": "0",
        "VERL_PLATFORM": "nvidia",
        "HF_HUB_OFFLINE": "1",
        "RANK": "0",
        "LOCAL_RANK": "0",
        "OMP_NUM_THREADS": "1",
    }


def run(library: Path, folder: Path, cases: Sequence[Case]) -> list[dict[str, Any]]:
    """Runs ``cases`` below ``folder`` and returns what each of them did
    (``tests.cuda.run.measure``).

    Raises RuntimeError with the end of a case's output where it failed.
    """
    (folder / "cases.json").write_text(json.dumps([asdict(case) for case in cases]))
    command = [sys.executable, "-W", "ignore", "-m", "tests.cuda.run", str(folder)]
    subprocess.run(command, env=os.environ | environment(library), cwd=ROOT, check=True)
    done = []
    for i, case in enumerate(cases):
        result = folder / f"{i}.json"
        if not result.exists():
            raise RuntimeError(
                f"{case.name} failed:\n{result.with_suffix('.log').read_text()[-4000:]}"
            )
        done.append(json.loads(result.read_text()))
    return done


def join(ranks: int) -> None:
    """Joins a process group of ``ranks`` ranks, of which this one alone exists; collectives return
    at once.
    """
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", rank=0, world_size=ranks, store=FakeStore())


def write_model(folder: Path, config: dict[str, Any]) -> None:
    """Leaves a Qwen3 of zeros in ``folder``: a config.json and a sparse safetensors file in
    bf16.
    """
    import torch
    from transformers import AutoModelForCausalLM, Qwen3Config

    made = Qwen3Config(architectures=["Qwen3ForCausalLM"], dtype="bfloat16", **config)
    made.save_pretrained(folder)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(made)
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in model.named_parameters():
        begin, end = end, end + 2 * tensor.numel()
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    words = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(words).to_bytes(8, "little") + words)
        file.truncate(8 + len(words) + end)
