"""Environment variables of a job: those that leak into it, and those that its programs need."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from pathlib import Path

LEAKS = ("SLURM_CPU_BIND", "SLURM_MEM_BIND", "SLURM_STEP_", "SLURM_SRUN_", "SLURM_PTY_")
"""Beginnings of variables of an allocation in which sbatch was called. srun would read them: with
the CPU binding of a small step all ranks share one core.
"""
CACHES = {
    "VLLM_CACHE_ROOT": "vllm",
    "TRITON_CACHE_DIR": "triton",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
}
"""Variables and the folders beside HF_HOME that they get. The programs' own defaults are in the
home folder, which is small, and in /tmp, which is lost.
"""


def prepare(variables: MutableMapping[str, str], cpus: int) -> None:
    """Changes the variables of a job script for its steps; ``cpus`` is the number per task."""
    for name in [name for name in variables if name.startswith(LEAKS)]:
        del variables[name]
    if home := variables.get("HF_HOME"):
        for name, folder in CACHES.items():
            variables.setdefault(name, str(Path(home).parent / folder))
    # Otherwise job steps would also start with an empty environment after sbatch --export=NONE.
    variables["SLURM_EXPORT_ENV"] = "ALL"
    variables["PYTHONUNBUFFERED"] = "1"
    variables["OMP_NUM_THREADS"] = str(cpus)


def outside(variables: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables as they are outside any job, for sbatch."""
    return {
        name: value
        for name, value in variables.items()
        if not name.startswith("SLURM_") or name == "SLURM_CONF"
    }
