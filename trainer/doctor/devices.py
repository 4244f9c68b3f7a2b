"""Checks that this machine has the GPUs that the recipe is planned for and that torch can
use them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from omegaconf import DictConfig

from trainer.doctor.findings import FATAL, NOT_HERE, OK, WARNING, Finding
from trainer.planning.hardware import covers, kind_of
from trainer.planning.memory import GIB
from trainer.planning.workload import cluster_of
from trainer.process import process_group

QUERY = [
    "nvidia-smi",
    "--query-gpu=name,memory.total,driver_version,mig.mode.current",
    "--format=csv,noheader,nounits",
]
NUMBER = re.compile(r"\d+(\.\d+)?")
MIG = " MIG"
"""Suffix for a card in MIG mode, as in CUDA's names of slices; nvidia-smi gives only the card's
name and memory.
"""
CHECKS = ("GPUs", "GPU kind", "GPU count", "CUDA")
STATED = "cluster.gpu=KIND (docs/limits.md), or cluster.gpu_memory_gib=N cluster.gpu_peak_tflops=N"
MEMORY_SHARE = 0.95
"""Share of the planned GPU's memory that a GPU must have: boards of the same kind differ a
little.
"""


@dataclass(frozen=True)
class Gpus:
    """This machine's GPUs, from nvidia-smi."""

    names: list[str]
    """CUDA names; a GPU in MIG mode has the suffix ``MIG``."""
    memory: float | None
    """Memory of the smallest GPU in bytes; None if nvidia-smi states none."""
    driver: str
    unstated: tuple[str, ...] = ()
    """What nvidia-smi prints in place of a GPU's memory, such as ``[N/A]`` if CPU and GPU
    share it.
    """
    faults: tuple[str, ...] = ()
    """Lines of nvidia-smi that do not describe a GPU, such as an error about one."""


def find() -> Gpus | None:
    """Returns this machine's GPUs; None when there is no driver or no GPU."""
    try:
        shown = subprocess.run(
            QUERY, check=True, capture_output=True, text=True, timeout=120
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    lines = [line.strip() for line in shown.splitlines() if line.strip()]
    cells = [[cell.strip() for cell in line.split(",")] for line in lines]
    rows = [row for row in cells if len(row) == QUERY[1].count(",") + 1]
    if not rows:
        return None
    names = [f"{name}{MIG}" if mode == "Enabled" else name for name, _, _, mode in rows]
    stated = [float(mib) for _, mib, _, _ in rows if NUMBER.fullmatch(mib)]
    return Gpus(
        names,
        min(stated) * 2**20 if stated else None,
        rows[0][2],
        tuple(sorted({mib for _, mib, _, _ in rows if not NUMBER.fullmatch(mib)})),
        tuple(line for line, row in zip(lines, cells, strict=True) if row not in rows),
    )


def facts(config: DictConfig) -> dict[str, str]:
    """Returns the GPU names and the driver, which must be the same on every node."""
    gpus = find() if config.device == "cuda" else None
    return (
        {} if gpus is None else {"GPUs": ", ".join(sorted(set(gpus.names))), "driver": gpus.driver}
    )


def check(config: DictConfig) -> Iterator[Finding]:
    """Yields findings on flash-attn, GPU kind and count, CUDA, driver and NCCL."""
    if config.device == "cpu":
        yield Finding(OK, "GPUs", "not needed with device=cpu")
        return
    yield _flash_attn()
    # The shell that salloc starts is in a job too, but mostly on the login node.
    gpus, in_job = find(), "SLURMD_NODENAME" in os.environ
    if gpus is None:
        fix = "sbatch --gpus-per-node=N, or another node (--exclude=NODE)" if in_job else ""
        yield Finding(
            FATAL if in_job else NOT_HERE, "GPUs", "nvidia-smi finds none on this machine", fix
        )
        return
    if gpus.faults:
        fix = "nvidia-smi on the node shows more; sbatch --exclude=NODE leaves it out"
        yield Finding(WARNING, "GPUs", f"nvidia-smi says: {'; '.join(gpus.faults)}", fix)
    yield _kind(config, gpus)
    yield _count(config, gpus, in_job)
    yield _software(gpus)
    if config.train.compile:
        yield _compiler()


def _flash_attn() -> Finding:
    """Returns the finding on flash-attn, which RL with verl needs and SFT does not."""
    there = find_spec("flash_attn") is not None
    missing = "not installed: training does not need it, RL with verl does"
    fix = "" if there else "before RL: FLASH_ATTN=1 make setup-gpu"
    return Finding(OK, "flash-attn", "installed" if there else missing, fix)


def _kind(config: DictConfig, gpus: Gpus) -> Finding:
    chosen, planned = config.cluster, cluster_of(config).gpu
    names = sorted(set(gpus.names))
    kinds = {kind_of(name) for name in names}
    sliced = any(name.endswith(MIG) for name in names)
    memory = "unknown memory" if gpus.memory is None else f"{gpus.memory / GIB:.1f} GiB"
    memory += " before it is split into slices" if sliced else ""
    if gpus.unstated:
        memory += f" (nvidia-smi states {', '.join(gpus.unstated)})"
    text = f"{', '.join(names)} with {memory}; the recipe is planned for {chosen.gpu}"
    fix = f"cluster.gpu={next(iter(kinds))}" if len(kinds) == 1 and None not in kinds else STATED
    if gpus.memory is not None and gpus.memory < MEMORY_SHARE * planned.memory:
        return Finding(
            FATAL,
            "GPU kind",
            text,
            f"warmstart plan {config.name} {fix}, or nodes with larger GPUs",
        )
    if chosen.gpu_memory_gib is not None and chosen.gpu_peak_tflops is not None:
        return Finding(OK, "GPU kind", f"{text}, with memory and peak set in the recipe")
    if all(kind is not None and covers(kind, chosen.gpu) for kind in kinds):
        return Finding(OK, "GPU kind", text)
    return Finding(WARNING, "GPU kind", text, fix)


def _count(config: DictConfig, gpus: Gpus, in_job: bool) -> Finding:
    key = "cluster.gpus_per_node" if in_job else "train.ranks"
    wanted, found = config.cluster.gpus_per_node if in_job else config.train.ranks, len(gpus.names)
    text = f"{found} here, {key}={wanted}"
    if found == 1 < wanted and process_group.under_slurm(os.environ):
        return Finding(OK, "GPU count", f"each of {wanted} ranks per node sees one GPU")
    if found < wanted:
        fix = f"{key}={found}"
        if in_job:
            fix += ", or sbatch --gpus-per-node=N"
        return Finding(FATAL, "GPU count", text, fix)
    return Finding(OK, "GPU count", text)


def _compiler() -> Finding:
    """Returns the finding on whether Triton, for which torch.compile generates code, can build its
    launchers.
    """
    there = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    # Debian's own scheme has the headers of no Python; Triton does not look there either.
    scheme = sysconfig.get_default_scheme().replace("posix_local", "posix_prefix")
    header = Path(sysconfig.get_path("include", scheme)) / "Python.h"
    if not there or not shutil.which(there):
        what = f"CC={there} does not exist" if there else "neither gcc nor clang is installed"
        fix = "load a module that has gcc (slurm/site.env), or train.compile=false"
        return Finding(FATAL, "compiler", f"train.compile=true needs a C compiler: {what}", fix)
    if not header.exists():
        text = f"train.compile=true needs Python's headers: {header} does not exist"
        fix = "a Python that has them (python3-dev), or train.compile=false"
        return Finding(FATAL, "compiler", text, fix)
    return Finding(OK, "compiler", f"{there}, for train.compile=true")


def _software(gpus: Gpus) -> Finding:
    import torch

    if torch.version.cuda is None:
        return Finding(
            FATAL, "CUDA", f"torch {torch.__version__} is built without CUDA", "make setup-gpu"
        )
    text = f"torch {torch.__version__} for CUDA {torch.version.cuda}, driver {gpus.driver}"
    if not torch.cuda.is_available():
        return Finding(
            FATAL,
            "CUDA",
            f"{text}: torch cannot use a GPU",
            "nodes with driver 580 or newer, or the module of cuda-compat (docs/clusters.md)",
        )
    return Finding(OK, "CUDA", f"{text}, NCCL {'.'.join(map(str, torch.cuda.nccl.version()))}")
