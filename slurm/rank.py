"""One srun task: trains as one rank; the first leaves the exit code in the run.

    srun ... python -m slurm.rank RUN RECIPE [key=value ...]

Training is a process below this one, so that a stop counts as a stop whatever moment of its start-up it meets.
"""

from __future__ import annotations

import sys
from pathlib import Path

from common.exit_codes import DONE, STOPPED
from slurm import child_process


def main() -> int:
    """Returns the exit code of ``warmstart train``; the first task alone says that it stopped.

    srun would end the others for it.
    """
    run, *words = sys.argv[1:]
    code = child_process.Stoppable().run([sys.executable, "-m", "warmstart", "train", *words])
    if child_process.is_first():
        child_process.leave_code(Path(run), code)
        return code
    return DONE if code == STOPPED else code


if __name__ == "__main__":
    sys.exit(main())
