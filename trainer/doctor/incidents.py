"""Records faults of single nodes for the job script, which excludes these nodes when it
requeues.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

from trainer.doctor import devices, health
from trainer.doctor.binding import SLOW
from trainer.doctor.findings import FATAL, Finding
from trainer.run.folder import INCIDENTS, Run

OF_NODES = (*devices.CHECKS, SLOW, "peers", "file system", "CPUs")
"""Subjects of findings on a node itself. If every node has the same fault, it is the job's."""


def record(run: Run, found: Mapping[str, Sequence[Finding]]) -> None:
    """Appends a line to the run's incidents for each node with its own fatal finding; ``found`` has
    the findings by node, those on the whole job under an empty name.
    """
    for node, what, cause in of_nodes(found):
        note(run, node, what, cause)


def note(run: Run, node: str, what: str, cause: str) -> None:
    """Appends one line: the fault of a node in this job, and the job's start. Prints the line if
    the run's folder cannot be written.
    """
    line = {"job": os.environ["SLURM_JOB_ID"], "start": own_start(), "node": node}
    try:
        run.note(INCIDENTS, line | {"what": what, "cause": cause})
    except OSError as e:
        print(f"warmstart: {node}: {what}: {cause} (not recorded: {e})", flush=True)


def own_start() -> int:
    """Returns the number of the job's current start, counted from 1."""
    return int(os.environ.get("SLURM_RESTART_COUNT", 0)) + 1


def of_nodes(found: Mapping[str, Sequence[Finding]]) -> Iterator[tuple[str, str, str]]:
    """Yields (node, subject, cause) for each fatal finding about a node that not every node has.

    A broken GPU is always its node's fault, even if every node has one.
    """
    count = sum(1 for node in found if node)
    with_fault: dict[str, set[str]] = {}
    for node, findings in found.items():
        for finding in findings:
            if node and finding.level == FATAL:
                with_fault.setdefault(finding.what, set()).add(node)
    for node, findings in found.items():
        for finding in findings:
            if not node or finding.level != FATAL:
                continue
            alone = finding.what in OF_NODES and len(with_fault[finding.what]) < count
            if alone or finding.what == health.HEALTH:
                yield node, finding.what, finding.cause
