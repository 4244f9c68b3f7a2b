"""One srun task: checks its node, rehearses, or trains as one rank. The first task writes its exit
code to the run's folder. A task whose training crashed records there what nvidia-smi reports about
its node's GPUs.

    srun ... python -m slurm.nodes.rank RUN doctor|rehearse|train RECIPE [key=value ...]

The work is a child process, so a stop request during its start-up also counts as a stop, not as a
crash.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from common.exit_codes import DONE, STOPPED
from slurm.nodes.child_process import Stoppable
from slurm.queue.exit_code import is_first, leave_code
from slurm.queue.requeue import kind_of
from trainer.doctor import health, incidents
from trainer.doctor.findings import this_node
from trainer.rehearsal.failure import STOPPED_LINE, Failure
from trainer.run.folder import Run


def main() -> int:
    """Returns the command's exit code; tasks other than the first return 0 instead of 75 (stopped).

    srun would kill the remaining tasks for a non-zero exit code.
    """
    run, verb, *words = sys.argv[1:]
    work = Stoppable()
    if verb == "rehearse":
        return _rehearse(work, words)
    code = work.run([sys.executable, "-m", "warmstart", verb, *words])
    if verb == "train" and kind_of(code) == "crashed":
        for fault in health.faults():
            if fault.lasting:
                incidents.note(Run(Path(run)), this_node(), health.HEALTH, fault.text)
    if is_first():
        leave_code(Path(run), code)
        return code
    return DONE if code == STOPPED else code


def _rehearse(work: Stoppable, words: list[str]) -> int:
    """Returns the exit code and prints whether the rank died or was asked to stop: srun's own exit
    code does not distinguish the two. A rank that srun ends because another one failed prints
    nothing.
    """
    code = work.run([sys.executable, "-m", "trainer.rehearsal.rehearse", *words])
    if code == STOPPED and not work.terminated:
        print(STOPPED_LINE, flush=True)
    elif code > 128:
        error = f"killed by {signal.Signals(code - 128).name}"
        print(Failure.of(os.environ["SLURM_PROCID"], this_node(), error).line, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
