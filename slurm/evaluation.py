"""An evaluation job: exports the model, generates rollouts on a Ray cluster of the job's nodes,
grades them, writes the report, and requeues itself if needed.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from common.errors import UserError
from common.exit_codes import DONE
from common.files import in_turn
from common.ray_session import OBJECT_STORE_BYTES
from slurm.commands import command_lines
from slurm.commands.stack import Stack
from slurm.nodes.child_process import Stoppable
from slurm.queue.requeue import conclude, forget
from slurm.ray_step import RayStep
from trainer.preflight import find_run
from trainer.recipe import load as configs
from trainer.recipe.relocate import of_dataset
from trainer.run import frozen_config, models
from trainer.run.folder import Run
from trainer.run.model_label import BASE, ModelLabel


def evaluate(job: command_lines.Job, words: Sequence[str]) -> int:
    """Exports and evaluates one model of a run on a Ray cluster of the allocation's nodes, then
    writes the report.

    Returns the job's exit code; outside a job, submits one. Raises UserError when RUN or the model
    is not given, or when the run, average or RL model does not exist.
    """
    if len(words) < 2:
        raise UserError(
            "usage: slurm/eval.sh [OPTION ...] RUN base|STEP|avg-NAME|rl-N [key=value ...]"
        )
    name, word, *overrides = words
    label = ModelLabel.parse(word)
    run = Run.find(name)
    label = models.resolve(run, label) if run else label
    root = str(run.root) if run else name
    config = configs.amend(frozen_config.read(run), overrides) if run else None
    stack = Stack.of(job, config, Path(root))
    merge = [word for word in overrides if word.startswith("export.")]
    chosen = [*of_dataset(overrides), *merge]
    export = stack.alone("-m", "warmstart", "export", root, label.word, *chosen)
    size = f"--num-cpus={job.allocation.cpus} --object-store-memory={OBJECT_STORE_BYTES}"
    nodes, copy = RayStep(stack, root, ["eval", label.word, *overrides], size), stack.copy()
    if job.dry_run:
        steps = [command_lines.line(copy)] if copy else []
        steps += [] if label == BASE else [command_lines.line(export, stack.variables)]
        steps += [nodes.line()]
        print(command_lines.submission_line(job), *steps, sep="\n")
        return DONE
    if run is None:
        run = find_run.find(name)
    if job.submission:
        command_lines.submit(job)
    forget(run)
    work = Stoppable()
    code = work.run(copy) if copy else DONE
    if code == DONE and label != BASE:
        code = work.run(export, stack.variables)
    if code == DONE:
        code = nodes.run(work, run)
    code = conclude(run, code, words, label)
    return code or _report(run, stack)


def _report(run: Run, stack: Stack) -> int:
    """Writes the run's report under a lock, so that the last of several evaluations includes all of
    them.
    """
    with in_turn(run.report_lock):
        return subprocess.run(
            stack.alone("-m", "warmstart", "report", str(run.root)),
            env=os.environ | stack.variables,
        ).returncode
