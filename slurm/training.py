"""A training job: preflight checks, ranks, and evaluations submitted meanwhile; then requeues
itself if needed.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from threading import Event, Thread

from common.errors import UserError
from common.exit_codes import DONE
from slurm import command_lines, dry_run, network
from slurm.child_process import Stoppable
from slurm.requeue import conclude, forget
from slurm.submit_evaluations import watch
from trainer.recipe import load as configs
from trainer.run.folder import Run
from trainer.run.frozen_config import check


def train(job: command_lines.Job, words: Sequence[str], site: Sequence[str]) -> int:
    """Trains with one rank per task of the allocation; returns the job's exit code.

    Raises UserError for a wrong recipe or override.
    """
    recipe, *overrides = words
    if overrides and overrides[0].startswith("recipe="):
        recipe = overrides.pop(0).removeprefix("recipe=")
    overrides = [
        *site,
        *(word.replace("%a", os.environ.get("SLURM_ARRAY_TASK_ID", "")) for word in overrides),
    ]
    config = configs.load(recipe, overrides)
    run = check(config)
    srun, stack = job.allocation.srun, command_lines.stack()
    # A job script runs on the job's first node, which has rank 0.
    address = command_lines.FIRST_NODE if job.submission else socket.gethostname()
    meeting = {"MASTER_ADDR": address, "MASTER_PORT": str(network.free_port())}
    # The first task reports for all of them; the exit codes of the others do not matter.
    preflight = srun(
        "--kill-on-bad-exit=0", *stack, "-m", "warmstart", "doctor", recipe, *overrides
    )
    ranks = srun(
        "--kill-on-bad-exit=1", *stack, "-m", "slurm.rank", str(run.root), recipe, *overrides
    )
    if job.submission:
        print(
            job.submission,
            command_lines.line(preflight, meeting),
            command_lines.line(ranks, meeting),
            sep="\n",
        )
        print(dry_run.page(config, job.allocation.nodes * job.allocation.tasks, job.notice))
        return DONE
    forget(run)
    work, over = Stoppable(), Event()
    watcher = Thread(target=_watch, args=(run, over))
    code = work.run(preflight, meeting)
    if code == DONE:
        watcher.start()
        code = work.run(ranks, meeting)
    over.set()
    if (code := conclude(run, code)) != DONE:
        return code
    watcher.join()
    # A command of its own, because even a crash in it must not fail a job that has finished
    # training.
    last = [sys.executable, "-m", "warmstart", "watch", str(run.root), "--once"]
    if code := subprocess.run(last).returncode:
        print(
            f"warmstart: evaluations are missing (exit code {code}): run "
            f"warmstart watch {run.root}",
            flush=True,
        )
    return DONE


def _watch(run: Run, over: Event) -> None:
    """Submits evaluations until ``over`` is set. Prints a UserError: training goes on without."""
    try:
        watch(run, stop=over)
    except UserError as e:
        print(f"warmstart: {e}", flush=True)
