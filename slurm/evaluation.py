"""An evaluation job: export, rollouts on a Ray cluster of its nodes, grades, report; then requeues
itself if needed.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from common.errors import UserError
from common.exit_codes import DONE
from common.files import Locked, write_lock
from slurm.commands import command_lines
from slurm.commands.stack import Stack
from slurm.nodes.child_process import Stoppable
from slurm.queue.requeue import conclude, forget
from trainer.process.network import addresses, free_port
from trainer.recipe import load as configs
from trainer.recipe import site
from trainer.recipe.relocate import of_dataset
from trainer.run import frozen_config
from trainer.run.folder import Run
from trainer.run.model_label import BASE, ModelLabel

REPORT_POLL_SECONDS = 2


def evaluate(job: command_lines.Job, words: Sequence[str]) -> int:
    """Exports and evaluates one model of a run on a Ray cluster of the allocation's nodes, then
    writes the report.

    Returns the job's exit code; outside the job it submits it. Raises UserError when RUN or the
    model is not given, or there is no such run.
    """
    if len(words) < 2:
        raise UserError("usage: slurm/eval.sh [OPTION ...] RUN base|STEP [key=value ...]")
    name, word, *overrides = words
    label = ModelLabel.parse(word)
    run = Run.find(name)
    root = str(run.root) if run else name
    config = configs.amend(frozen_config.read(run), overrides) if run else None
    stack, port = Stack.of(job, config, Path(root)), free_port()
    merge = [word for word in overrides if word.startswith("export.")]
    chosen = [*of_dataset(overrides), *merge]
    export = stack.alone("-m", "warmstart", "export", root, label.word, *chosen)
    # The evaluation survives the loss of a node; only the first task's exit code counts.
    task = [*stack.python, "-m", "slurm.nodes.ray_node", root, label.word, *overrides]
    nodes, copy = stack.srun("--kill-on-bad-exit=0", *task, wait=0), stack.copy()
    token = Run(Path(root).resolve()).ray_token(os.environ.get("SLURM_JOB_ID", "JOB"))
    ray = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_ADDRESS": f"{command_lines.FIRST_NODE}:{port}",
        **stack.variables,
    }
    if job.dry_run:
        steps = [command_lines.line(copy)] if copy else []
        steps += [] if label == BASE else [command_lines.line(export, stack.variables)]
        steps += [command_lines.line(nodes, ray)]
        print(command_lines.submission_line(job), *steps, sep="\n")
        return DONE
    if run is None:
        raise UserError(f"no run at {name} or {site.runs() / name}")
    if job.submission:
        command_lines.submit(job)
    here = os.environ["SLURMD_NODENAME"]
    known = addresses(os.environ["SLURM_JOB_NODELIST"], here)
    ray["RAY_ADDRESS"] = f"{known[here]}:{port}"
    ray["NODE_ADDRESSES"] = " ".join(f"{node}={address}" for node, address in known.items())
    forget(run)
    work = Stoppable()
    code = work.run(copy) if copy else DONE
    if code == DONE and label != BASE:
        code = work.run(export, stack.variables)
    if code == DONE:
        _write_secret(token)
        code = work.run(nodes, ray, over=run.exit_code(os.environ["SLURM_JOB_ID"]).exists)
        token.unlink(missing_ok=True)
    code = conclude(run, code, words, label)
    return code or _report(run, stack)


def _report(run: Run, stack: Stack) -> int:
    """Writes the run's report under a lock, so that the last of several evaluations includes all of
    them.
    """
    while True:
        try:
            with write_lock(run.report_lock):
                return subprocess.run(
                    stack.alone("-m", "warmstart", "report", str(run.root)),
                    env=os.environ | stack.variables,
                ).returncode
        except Locked:  # another evaluation is writing the report
            time.sleep(REPORT_POLL_SECONDS)


def _write_secret(path: Path) -> None:
    """Writes a new random secret that only this user may read."""
    path.unlink(missing_ok=True)  # left by the same job before it was requeued
    with open(
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii"
    ) as f:
        f.write(secrets.token_hex(32))
