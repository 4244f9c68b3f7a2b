"""A training job: checks its nodes, rehearses, runs the ranks, submits evaluations meanwhile, and
requeues itself if needed.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from threading import Event, Thread

from common.errors import UserError
from common.exit_codes import DONE, PREFLIGHT
from slurm.commands import command_lines, dry_run
from slurm.commands.stack import Stack
from slurm.nodes.child_process import Stoppable
from slurm.queue.exit_code import take_code
from slurm.queue.export_checkpoints import export_each
from slurm.queue.requeue import conclude, forget
from slurm.queue.submit_evaluations import watch
from slurm.rehearsal import Rehearsal
from trainer.doctor import forecast
from trainer.doctor.findings import carrying, is_fatal, merge, table
from trainer.doctor.size import check as check_size
from trainer.doctor.size import sized
from trainer.process.network import addresses, free_port, hostnames
from trainer.process.process_group import NODE_NAMES
from trainer.recipe import load as configs
from trainer.recipe.files import is_path
from trainer.rehearsal import knobs
from trainer.run.folder import Run
from trainer.run.frozen_config import check, choose

RECIPE, INDEX = "recipe=", "%a"


def train(job: command_lines.Job, words: Sequence[str]) -> int:
    """Trains with one rank per task of the allocation; returns the job's exit code. Outside a job,
    submits one, unless it would fail or waste most of its GPUs' time: exit code 3.

    Raises UserError for a wrong recipe or override.
    """
    recipe, overrides = _parts(words, job.index)
    overrides, config = choose(partial(configs.load, recipe), overrides)
    run = check(config)
    own = [Path(recipe).parent] if is_path(recipe) else []
    stack = Stack.of(job, config, *own)
    srun, python = stack.srun, stack.python
    # A job script runs on the job's first node, which has rank 0.
    meeting = {"MASTER_ADDR": _meeting_place(job), "MASTER_PORT": str(free_port())}
    meeting |= stack.variables
    if not job.submission:
        meeting[NODE_NAMES] = " ".join(hostnames(os.environ["SLURM_JOB_NODELIST"]))
    # The first task reports for all of them; the exit codes of the others do not matter.
    task, chosen = (*python, "-m", "slurm.nodes.rank", str(run.root)), (recipe, *overrides)
    preflight = srun("--kill-on-bad-exit=0", *task, "doctor", *chosen, wait=0)
    ranks = srun("--kill-on-bad-exit=1", *task, "train", *chosen)
    rehearsal = None
    if knobs.is_due(run, config):
        rehearsal = Rehearsal(stack, run, chosen, knobs.switched_on(config))
    copy = stack.copy()
    if job.submission:
        size = job.allocation.size
        plan = forecast.look(sized(config, size), run)[1]
        again = shlex.join(chosen)
        found = merge({"": [*check_size(config, size), *plan, *stack.advice()]})
        findings = [carrying(finding, config.name, again) for finding in found]
        if job.dry_run:
            steps = [command_lines.line(copy)] if copy else []
            rehearsed = [rehearsal.command()] if rehearsal else []
            steps += [command_lines.line(x, meeting) for x in (preflight, *rehearsed, ranks)]
            print(command_lines.submission_line(job), *steps, sep="\n")
            print(dry_run.page(config, job, findings))
        elif is_fatal(findings):
            print(table(findings), file=sys.stderr)
        if is_fatal(findings):
            return PREFLIGHT
        return DONE if job.dry_run else command_lines.submit(job)
    forget(run)
    work, over = Stoppable(), Event()
    watcher = Thread(target=_watch, args=(run, over))
    exporter = Thread(target=_export, args=(stack, run, over))
    code = work.run(copy) if copy else DONE
    if code == DONE:
        job_id = os.environ["SLURM_JOB_ID"]
        code = work.run(preflight, meeting, over=run.exit_code(job_id).exists)
        reported = take_code(run.root, job_id)
        code = code if reported is None else reported
    if code == DONE and rehearsal:
        code = rehearsal.hold(work, meeting)
    if code == DONE:
        watcher.start()
        exporter.start()
        code = work.run(ranks, meeting)
    over.set()
    if (code := conclude(run, code, words[1:])) != DONE:
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


def _parts(words: Sequence[str], index: str) -> tuple[str, list[str]]:
    """Returns the recipe, which a word ``recipe=NAME`` or ``recipe=PATH`` replaces, and the
    overrides for the job of the array that has ``index``.
    """
    recipe, *rest = words
    names = [word for word in rest if word.startswith(RECIPE)]
    overrides = [word for word in rest if word not in names]
    if not index and any(INDEX in word for word in overrides):
        raise UserError(f"{INDEX} stands for the index in a job array: add --array=1-3")
    return (
        names[-1].removeprefix(RECIPE) if names else recipe,
        [word.replace(INDEX, index) for word in overrides],
    )


def _meeting_place(job: command_lines.Job) -> str:
    """Returns the address at which rank 0 listens: the site's, otherwise the node's."""
    if preset := os.environ.get("MASTER_ADDR"):
        return preset
    if job.submission:
        return command_lines.FIRST_NODE
    here = os.environ["SLURMD_NODENAME"]
    return addresses(os.environ["SLURM_JOB_NODELIST"], here)[here]


def _watch(run: Run, over: Event) -> None:
    """Submits evaluations until ``over`` is set. Prints a UserError; training continues without
    evaluations.
    """
    try:
        watch(run, stop=over)
    except UserError as e:
        print(f"warmstart: {e}", flush=True)


def _export(stack: Stack, run: Run, over: Event) -> None:
    """Exports checkpoints until ``over`` is set. Does nothing if each command would be a separate
    Slurm step, which would wait for the ranks' CPUs.
    """
    if not stack.by_srun:
        words = ("-m", "warmstart", "export", str(run.root))
        export_each(run, lambda step: stack.alone(*words, str(step)), stack.variables, over)
