"""An RL job: runs verl's GRPO trainer from a prepared start, on a Ray cluster of the job's nodes,
and requeues itself if needed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from omegaconf import DictConfig

from common.errors import UserError
from common.exit_codes import DONE
from slurm.commands import command_lines
from slurm.commands.stack import Stack
from slurm.nodes.child_process import Stoppable
from slurm.nodes.ray_node import RL
from slurm.queue.requeue import conclude, forget
from slurm.ray_step import RayStep
from trainer.preflight import find_run
from trainer.run import frozen_config
from trainer.run.folder import Run
from trainer.run.model_label import ModelLabel
from trainer.run.rl_start import RlStart


def reinforce(job: command_lines.Job, words: Sequence[str]) -> int:
    """Runs or resumes the newest start of a step (without a step: of the run) on all GPUs of the
    allocation; returns the job's exit code. Outside a job, submits one.

    Raises UserError when RUN is not given or does not exist, when STEP is not a step of SFT, when
    nothing is prepared, and when the GPUs cannot share the batch.
    """
    if not words:
        raise UserError("usage: slurm/rl.sh [OPTION ...] RUN [STEP] [key=value ...]")
    name, *rest = words
    run = find_run.find(name)
    step, overrides = (None, rest) if not rest or "=" in rest[0] else (rest[0], rest[1:])
    start, config = _start(run, step), frozen_config.read(run)
    own = start.values([])
    size = [
        f"trainer.nnodes={job.allocation.nodes}",
        f"trainer.n_gpus_per_node={_gpus(job, config, own)}",
    ]
    values = start.values([*size, *overrides])
    stack = Stack.of(job, config, run.root)
    node = f"--num-cpus={job.allocation.cpus}"
    if config.device == "cpu":
        # verl's ranks need logical GPUs, and each of its actors reserves a CPU.
        node = f"--num-cpus=16 --num-gpus={values.trainer.n_gpus_per_node}"
    task, copy = [RL, str(start.root.resolve()), *size, *overrides], stack.copy()
    nodes = RayStep(stack, str(run.root), task, node)
    if job.dry_run:
        steps = [command_lines.line(copy)] if copy else []
        print(command_lines.submission_line(job), *steps, nodes.line(), sep="\n")
        return DONE
    if job.submission:
        command_lines.submit(job)
    forget(run)
    work = Stoppable()
    code = work.run(copy) if copy else DONE
    if code == DONE:
        code = nodes.run(work, run)
    return conclude(run, code, words, rl=start)


def _start(run: Run, word: str | None) -> RlStart:
    step = None if word is None else ModelLabel.parse(word).step
    if word is not None and step is None:
        raise UserError(f"RL starts from a step of SFT: give its number, not {word}")
    starts = RlStart.find(run.rl, step)
    if not starts:
        model = "" if step is None else f" {step}"
        raise UserError(
            f"nothing is prepared in {run.rl} for RL{model and f' from step{model}'}: "
            f"warmstart rl {run.root}{model}"
        )
    return starts[-1]


def _gpus(job: command_lines.Job, config: DictConfig, own: DictConfig) -> int:
    """Returns the ranks per node: the node's GPUs or, on CPUs, the ranks of the start."""
    there = job.allocation.gpus or int(os.environ.get("SLURM_GPUS_ON_NODE", "0"))
    return own.trainer.n_gpus_per_node if config.device == "cpu" or not there else there
