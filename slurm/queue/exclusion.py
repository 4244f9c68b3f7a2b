"""The nodes that a job excludes after a requeue: those that were broken in its last starts."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Collection, Sequence

from slurm.queue.jobs import show
from trainer.process.network import hostnames
from trainer.run.folder import INCIDENTS, Run

STARTS = 3
"""Number of starts for which a node stays excluded: it may be repaired, and a job must not run out
of nodes.
"""

UNUSABLE = re.compile(r"down|drain|fail|error|unknown|inval|maint|.*\*$")
"""Slurm's states of nodes that take no job; a star marks one that does not answer."""


def broken(run: Run, job: str, start: int) -> dict[str, str]:
    """Returns {node: what was wrong with it} for a start of a job, counted from 1.

    Empty if more than half of several nodes seem broken, because the cause is then something that
    they share.
    """
    lines = [x for x in run.notes(INCIDENTS) if (x["job"], x["start"]) == (job, start)]
    nodes = {line["node"]: f"{line['what']}: {line['cause']}" for line in lines}
    there = int(os.environ.get("SLURM_JOB_NUM_NODES", 1))
    return nodes if len(nodes) <= max(1, there // 2) else {}


def names(run: Run, job: str, starts: Sequence[tuple[str, int]]) -> set[str]:
    """Returns the nodes to exclude next: those that the job's user excludes, and those that were
    broken in the last of the ``starts``, which are (job, number) of the job and its predecessors.
    """
    by_start = [set(broken(run, *start)) for start in starts]
    users = excluded(job) - set().union(*by_start)
    wanted = users | set().union(*by_start[-STARTS:])
    if wanted != users and len(_usable() - wanted) < int(os.environ.get("SLURM_JOB_NUM_NODES", 1)):
        print("warmstart: no node is excluded: too few would remain", flush=True)
        return users
    return wanted


def exclude(job: str, nodes: Collection[str]) -> None:
    """Makes a queued job exclude exactly these nodes; Slurm changes a job only in the queue. Prints
    Slurm's message if it refuses.
    """
    if {*nodes} == excluded(job):
        return
    done = subprocess.run(
        ["scontrol", "update", f"JobId={job}", f"ExcNodeList={','.join(sorted(nodes))}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        print(f"warmstart: no node is excluded: {done.stdout.strip()}", flush=True)


def _usable() -> set[str]:
    """Returns the nodes of the job's partition, or of its reservation, that are up."""
    partition = f"--partition={os.environ.get('SLURM_JOB_PARTITION', '')}"
    shown = _said("sinfo", "--noheader", "--Node", "--format=%N %T", partition).splitlines()
    listed = (line.split() for line in shown if line.strip())
    nodes = {node for node, state in listed if not UNUSABLE.match(state)}
    if reservation := os.environ.get("SLURM_JOB_RESERVATION"):
        text = _said("scontrol", "show", "reservation", reservation)
        found = re.search(r"\bNodes=(\S+)", text)
        nodes &= {*hostnames(found[1])} if found else set()
    return nodes


def _said(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True).stdout


def excluded(job: str) -> set[str]:
    """Returns the nodes that a job excludes."""
    found = re.search(r"\bExcNodeList=(\S+)", show(job))
    if found is None or found[1] == "(null)":
        return set()
    return {*hostnames(found[1])}
