"""What a check says, and how a list of that reads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

OK, NOT_HERE, WARNING, FATAL = "ok", "not here", "warning", "fatal"
LEVELS = (FATAL, WARNING, NOT_HERE, OK)
"""The worst first. ``not here`` is what cannot be told on this machine, such as GPUs on a login node."""

NAMED = 4
"""Nodes that are listed one by one."""


@dataclass(frozen=True)
class Finding:
    """One check's result."""

    level: str
    what: str
    """The thing checked, a word or two."""
    cause: str
    fix: str = ""
    """A command, or keys of the recipe, that fixes it."""


@dataclass(frozen=True)
class Located:
    """A finding, and the nodes that made it; none outside a job."""

    finding: Finding
    nodes: list[str]

    def json(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self.finding), "nodes": self.nodes}


def this_node() -> str:
    """This node, in a job by the name that ``sbatch --exclude`` knows it by."""
    return os.environ.get("SLURMD_NODENAME") or os.uname().nodename


def merge(by_node: Mapping[str, Iterable[Finding]]) -> list[Located]:
    """Findings by node, or by nothing, as one list: like ones together, the worst first."""
    nodes: dict[Finding, list[str]] = {}
    for node, findings in by_node.items():
        for finding in findings:
            nodes.setdefault(finding, []).extend([node] if node else [])
    return [Located(f, nodes[f]) for f in sorted(nodes, key=lambda f: LEVELS.index(f.level))]


def names(nodes: Sequence[str]) -> str:
    """Nodes as a text that stays short."""
    return ", ".join(nodes) if len(nodes) <= NAMED else f"{nodes[0]} and {len(nodes) - 1} more nodes"


def is_fatal(found: Iterable[Located]) -> bool:
    """Whether a job would fail, or should not begin."""
    return any(f.finding.level == FATAL for f in found)


def table(found: Sequence[Located]) -> str:
    """Level, thing, cause and node; below it the command that fixes it."""
    width = max(len(f.finding.what) for f in found)
    lines = []
    for f in found:
        finding, where = f.finding, f" [{names(f.nodes)}]" if f.nodes else ""
        lines.append(f"{finding.level:<8}  {finding.what:<{width}}  {finding.cause}{where}")
        if finding.fix:
            lines.append(f"{'':<8}  {'':<{width}}  -> {finding.fix}")
    counts = [(level, sum(f.finding.level == level for f in found)) for level in LEVELS]
    return "\n".join([*lines, ", ".join(f"{count} {level}" for level, count in counts if count)])
