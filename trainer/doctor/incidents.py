"""What was wrong with single nodes, for the job script: it leaves them out when it requeues."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

from trainer.doctor import devices, health
from trainer.doctor.binding import SLOW
from trainer.doctor.findings import FATAL, Finding
from trainer.run.folder import INCIDENTS, Run

OF_NODES = (*devices.CHECKS, SLOW, "peers", "file system", "CPUs")
"""Subjects about a node itself. If every node has the same fault, it is the job's."""


def record(run: Run, found: Mapping[str, Sequence[Finding]]) -> None:
    """Appends a line to the run's incidents for each node that has a fatal finding of its own;
    ``found`` has the findings by node, those of the whole job under an empty name.
    """
    for node, what, cause in of_nodes(found):
        note(run, node, what, cause)


def note(run: Run, node: str, what: str, cause: str) -> None:
    """Appends one line: what was wrong with a node in this job, and in which of its starts. Prints
    it where the run's folder cannot be written.
    """
    line = {"job": os.environ["SLURM_JOB_ID"], "start": own_start(), "node": node}
    try:
        run.note(INCIDENTS, line | {"what": what, "cause": cause})
    except OSError as e:
        print(f"warmstart: {node}: {what}: {cause} (not noted: {e})", flush=True)


def own_start() -> int:
    """Returns which start of its job this is, counted from 1."""
    return int(os.environ.get("SLURM_RESTART_COUNT", 0)) + 1


def of_nodes(found: Mapping[str, Sequence[Finding]]) -> Iterator[tuple[str, str, str]]:
    """Yields (node, subject, cause) for each fatal finding about a node that not every node has.

    A GPU that is broken is its node's fault, however many nodes there are.
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
