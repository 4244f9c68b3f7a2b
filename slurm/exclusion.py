"""The nodes that a job leaves out after a requeue: those that were broken in its last starts."""

from __future__ import annotations

import os
import re
import subprocess

from trainer.run.folder import INCIDENTS, Run

STARTS = 3
"""Starts of the job for which a node stays left out: somebody may repair it, and a job must not run
out of nodes.
"""


def broken(run: Run, job: str, start: int) -> dict[str, str]:
    """Returns {node: what was wrong with it} for this start of the job.

    Empty where more than half of several nodes look broken: then it is something that they share.
    """
    lines = [x for x in run.notes(INCIDENTS) if (x["job"], x["start"]) == (job, start)]
    nodes = {line["node"]: f"{line['what']}: {line['cause']}" for line in lines}
    there = int(os.environ.get("SLURM_JOB_NUM_NODES", 1))
    return nodes if len(nodes) <= max(1, there // 2) else {}


def exclude(run: Run, job: str, start: int) -> list[str]:
    """Leaves out the nodes that were broken in the last starts of a pending job, besides those that
    its user left out; returns them. Prints Slurm's message if it refuses.
    """
    lines = [line for line in run.notes(INCIDENTS) if line["job"] == job]
    ours = {line["node"] for line in lines}
    recent = {s for s in range(start - STARTS + 1, start + 1) if broken(run, job, s)}
    last = {line["node"] for line in lines if line["start"] in recent}
    now = _excluded(job)
    wanted = (now - ours) | last
    if wanted != now:
        names = ",".join(sorted(wanted))
        done = subprocess.run(
            ["scontrol", "update", f"JobId={job}", f"ExcNodeList={names}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            print(f"warmstart: nodes are not left out: {done.stdout.strip()}", flush=True)
            return []
    return sorted(last)


def _excluded(job: str) -> set[str]:
    """Returns the names of the nodes that the job leaves out."""
    shown = _said("scontrol", "show", "job", "-o", job)
    found = re.search(r"\bExcNodeList=(\S+)", shown)
    if found is None or found[1] == "(null)":
        return set()
    return set(_said("scontrol", "show", "hostnames", found[1]).split())


def _said(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True).stdout
