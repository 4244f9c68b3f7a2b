"""Environment variables of a job: sets those that its programs need and removes those that its
steps must not see.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path

MEMORY = ("SLURM_MEM_PER_CPU", "SLURM_MEM_PER_GPU", "SLURM_MEM_PER_NODE")
"""Variables of which srun accepts at most one; without any, a step has the job's memory."""
CACHES = {
    "VLLM_CACHE_ROOT": "vllm",
    "TRITON_CACHE_DIR": "triton",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
}
"""Variables, and the folders next to HF_HOME that they are set to. The programs' own defaults are
in the home folder, which is small, and in /tmp, which is lost.
"""


def prepare(variables: MutableMapping[str, str], cpus: int) -> None:
    """Changes the variables of a job script for its steps; ``cpus`` is the number per task."""
    if sum(name in variables for name in MEMORY) > 1:  # one is that of another allocation
        for name in MEMORY:
            variables.pop(name, None)
    if home := variables.get("HF_HOME"):
        for name, folder in CACHES.items():
            variables.setdefault(name, str(Path(home).parent / folder))
    # Otherwise job steps would also start with an empty environment after sbatch --export=NONE.
    variables["SLURM_EXPORT_ENV"] = "ALL"
    variables["PYTHONUNBUFFERED"] = "1"
    variables["OMP_NUM_THREADS"] = str(cpus)
