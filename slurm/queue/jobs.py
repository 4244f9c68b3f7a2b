"""Jobs in Slurm's queue: reads their states, submits and requeues them, and submits a successor of
a job that may not be requeued.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from common.errors import UserError
from slurm.commands.command_lines import asked
from trainer.doctor.slurm import outside

ASK_SECONDS = 30
"""Time-out of a query to Slurm."""
ENDED = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "TIMEOUT",
}
"""States of a job that Slurm will not run again; in any other state, a job counts as alive."""
UNKNOWN = "UNKNOWN"
FIELDS = {
    "Account": "account",
    "Partition": "partition",
    "QOS": "qos",
    "Reservation": "reservation",
    "TimeLimit": "time",
    "Features": "constraint",
    "ReqNodeList": "nodelist",
    "ExcNodeList": "exclude",
    "Licenses": "licenses",
    "MinMemoryNode": "mem",
    "MinMemoryCPU": "mem-per-cpu",
    "MailUser": "mail-user",
    "MailType": "mail-type",
}
"""sbatch's options by the fields in which ``scontrol show job`` has them."""
VARIABLES = {
    "SLURM_JOB_NAME": "job-name",
    "SLURM_JOB_NUM_NODES": "nodes",
    "SLURM_NTASKS_PER_NODE": "ntasks-per-node",
    "SLURM_CPUS_PER_TASK": "cpus-per-task",
    "SLURM_ARRAY_TASK_ID": "array",
}
"""sbatch's options by the variables in which the job itself has them."""
NOTHING = ("", "(null)", "N/A", "Partition_Limit")


def own_id() -> str:
    """Returns this job's id for Slurm's commands; in an array, ``ID_INDEX``. One job of an array
    has the array's own id, which means all of them.
    """
    index = os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{index}" if index else os.environ["SLURM_JOB_ID"]


def show(job: str) -> str:
    """Returns the output of ``scontrol show job`` in one line; empty if Slurm does not know the
    job.
    """
    return subprocess.run(
        ["scontrol", "show", "job", "-o", job], capture_output=True, text=True
    ).stdout


def state(job: str) -> str:
    """Returns Slurm's state of a job, e.g. RUNNING; UNKNOWN if scontrol does not show it."""
    return _field(show(job), "JobState") or UNKNOWN


def ended(jobs: Collection[str]) -> dict[str, str] | None:
    """Returns the jobs among ``jobs`` that have ended, with their state: UNKNOWN for those that
    Slurm has forgotten. Sends one query for all; None if Slurm does not answer.

    A job of another cluster, ``ID;CLUSTER``, is not queried and counts as alive.
    """
    here = [job for job in jobs if job.isdecimal()]
    command = ["squeue", "--noheader", "--states=all", "--format=%i %T", f"--jobs={','.join(here)}"]
    # A person's own variables would hide jobs.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}
    try:
        done = subprocess.run(
            command, env=plain, capture_output=True, text=True, timeout=ASK_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return None
    # squeue shows those it knows among several, and fails for a single one that it does not know.
    if done.returncode and (len(here) > 1 or "Invalid job id" not in done.stderr):
        return None
    shown = dict(line.split()[:2] for line in done.stdout.splitlines() if len(line.split()) > 1)
    states = {job: shown.get(job, UNKNOWN) for job in here}
    return {job: state for job, state in states.items() if state in ENDED or state == UNKNOWN}


def requeue(job: str, pause: int) -> str | None:
    """Puts the running job back into the queue. Returns Slurm's error message if it refuses, else
    None.

    Slurm then ends all processes of the job, including this one, after a few seconds.
    """
    done = subprocess.run(
        ["scontrol", "requeue", job], stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        return done.stdout.strip()
    if pause:
        subprocess.run(
            ["scontrol", "update", f"JobId={job}", f"StartTime=now+{pause}"], check=False
        )
    return None


def submit(command: Sequence[str], folder: Path) -> tuple[str | None, str]:
    """Runs sbatch, or a script that becomes it, with ``--parsable``. Returns (job id, or None when
    it fails; sbatch's output), as where a user submits on the login node. The id on another cluster
    is ``ID;CLUSTER``.
    """
    variables = outside()
    try:
        done = subprocess.run(
            command, cwd=folder, env=variables, capture_output=True, text=True, timeout=300
        )
    except subprocess.TimeoutExpired:
        return None, "sbatch has not answered for 5 minutes"
    except OSError as e:
        return None, f"{command[0]}: {e.strerror}"
    found = re.search(r"^\d+(;\S+)?$", done.stdout, re.MULTILINE)
    output = (done.stderr or done.stdout).strip()
    return (found[0] if done.returncode == 0 and found else None), output


def succession(job: str, words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns (sbatch's options, script and words) that submit this job, ``job``, once more with
    the same request; ``words`` are its script's arguments. Of an array, only this index is
    submitted.

    Slurm does not report a job's --signal, so the script's or the site's is used.
    """
    shown = show(own_id())
    found = re.search(r" Command=(.*?)(?: WorkDir=|\s*$)", shown)
    # The arguments stand behind the script, not quoted.
    script = found[1].removesuffix("".join(f" {word}" for word in words)) if found else ""
    options = {name: os.environ.get(variable, "") for variable, name in VARIABLES.items()}
    options |= {name: _field(shown, field) for field, name in FIELDS.items()}
    before: dict[str, str] = {}
    with suppress(OSError, UserError):
        before = asked(Path(script), ())
    gpus = re.search(r"\bTresPerNode=(?:\S*,)?(?:gres[:/])?gpu:(\S+?)(?:,|\s|$)", shown)
    if gpus and gpus[1] != before.get("gpus-per-node"):
        options["gpus-per-node"] = gpus[1]
    if memory := re.search(r"\bMemPerTres=gres[:/]gpu:(\w+)", shown):
        options |= {"mem": "", "mem-per-gpu": memory[1]}
    lines = [f"--{name}={value}" for name, value in options.items() if value not in NOTHING]
    flags = {"Requeue=0": "--no-requeue", "OverSubscribe=NO": "--exclusive"}
    lines += [flag for shows, flag in flags.items() if f" {shows} " in shown]
    return [*lines, *_log(shown, job, before.get("output", ""))], [script, *words]


def _log(shown: str, job: str, pattern: str) -> list[str]:
    """Returns the option for the job's log, unless its script or the site sets it (``pattern``)."""
    found = re.search(r" StdOut=(.*?)(?: \w+=|\s*$)", shown)
    name = pattern.replace("%x", os.environ.get("SLURM_JOB_NAME", "")).replace("%j", job)
    if not found or Path(found[1]).name in (name, pattern):
        return []
    return [f"--output={found[1]}"]


def _field(shown: str, name: str) -> str:
    found = re.search(rf"\b{name}=(\S*)", shown)
    return found[1] if found else ""
