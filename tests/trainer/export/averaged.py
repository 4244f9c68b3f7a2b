"""A run with checkpoints and exports of several steps that nobody trained, and means of its tensors
by brute force.
"""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from omegaconf import DictConfig
from safetensors.torch import load_file

from common.files import MANIFEST, sha256_file, write_json
from trainer.checkpoint.checkpoint import OPTIMIZER
from trainer.export.export import export
from trainer.run.folder import SCALARS, Run

Tensors = Mapping[str, torch.Tensor]


def base(config: DictConfig) -> Tensors:
    """The base model's tensors in fp32."""
    (path,) = Path(config.model.path).glob("*.safetensors")
    return {name: tensor.float() for name, tensor in load_file(path).items()}


def stepped(config: DictConfig, step: int) -> Tensors:
    """The fp32 weights of a step: the base's, each moved by about a tenth of it."""
    chosen = torch.Generator().manual_seed(step)
    return {
        name: tensor + 0.1 * tensor.std() * torch.randn(tensor.shape, generator=chosen)
        for name, tensor in base(config).items()
    }


def save(run: Run, step: int, tensors: Tensors) -> None:
    """Writes a complete checkpoint as training does, with one tensor of the optimizer."""
    folder = run.checkpoint(step)
    storage = dcp.HuggingFaceStorageWriter(str(folder), save_distributed=True)
    name, tensor = next(iter(tensors.items()))
    dcp.save(
        {**tensors, OPTIMIZER + name: torch.ones_like(tensor)}, storage_writer=storage, no_dist=True
    )
    write_json(folder / SCALARS, {"identity": {"dataset": "d" * 64}})
    write_json(folder / MANIFEST, {"files": {p.name: sha256_file(p) for p in folder.iterdir()}})


def exported(run: Run, config: DictConfig, step: int) -> None:
    """Exports a step and deletes its checkpoint, as training's retention does."""
    export(run, config, step)
    for path in run.checkpoint(step).iterdir():
        path.unlink()
    run.checkpoint(step).rmdir()


def mean(terms: Sequence[tuple[Fraction, Tensors]]) -> Tensors:
    """The weighted mean of all models at once in fp64, rounded to bf16 once. Weights are whole
    numbers and the sum is divided, as in a plain mean: a weight of 1/3 would leave 1e-20 of 0.
    """
    common = math.lcm(*(share.denominator for share, _ in terms))
    found = {}
    for name in terms[0][1]:
        each = [int(share * common) * tensors[name].double() for share, tensors in terms]
        found[name] = (torch.stack(each).sum(0) / common).bfloat16()
    return found
