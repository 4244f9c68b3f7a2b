"""The result of a check, and the table of all results."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from trainer.recipe.typed_words import with_words

OK, NOT_HERE, WARNING, FATAL = "ok", "not here", "warning", "fatal"
LEVELS = (FATAL, WARNING, NOT_HERE, OK)
"""Levels, worst first. ``not here`` is a check that this machine cannot do, such as GPUs on a login
node.
"""

NAMED = 4
"""Maximum number of nodes that are listed by name."""


@dataclass(frozen=True)
class Finding:
    """One check's result."""

    level: str
    what: str
    """The subject of the check, in one or two words."""
    cause: str
    fix: str = ""
    """The command or the recipe's keys that fix it."""


@dataclass(frozen=True)
class Located:
    """A finding, and the nodes that reported it; no nodes outside a job."""

    finding: Finding
    nodes: list[str]

    def json(self) -> dict[str, Any]:
        """Returns the finding as plain values."""
        return {**asdict(self.finding), "nodes": self.nodes}


def this_node() -> str:
    """Returns this node's name, in a job the one that ``sbatch --exclude`` takes."""
    return os.environ.get("SLURMD_NODENAME") or os.uname().nodename


def merge(by_node: Mapping[str, Iterable[Finding]]) -> list[Located]:
    """Returns findings by node (an empty name outside a job) as one list: equal findings merged,
    worst first.
    """
    nodes: dict[Finding, list[str]] = {}
    for node, findings in by_node.items():
        for finding in findings:
            nodes.setdefault(finding, []).extend([node] if node else [])
    return [Located(f, nodes[f]) for f in sorted(nodes, key=lambda f: LEVELS.index(f.level))]


def carrying(found: Located, name: str, again: str) -> Located:
    """Returns the finding with ``again``, the recipe and its overrides, in place of the bare recipe
    in the commands that it names.
    """
    finding = found.finding
    cause, fix = (with_words(text, name, again) for text in (finding.cause, finding.fix))
    return replace(found, finding=replace(finding, cause=cause, fix=fix))


def names(nodes: Sequence[str]) -> str:
    """Returns the nodes' names as a short text."""
    return (
        ", ".join(nodes) if len(nodes) <= NAMED else f"{nodes[0]} and {len(nodes) - 1} more nodes"
    )


def is_fatal(found: Iterable[Located]) -> bool:
    """Returns True when a finding is fatal: a job would fail, or should not start."""
    return any(f.finding.level == FATAL for f in found)


def table(found: Sequence[Located]) -> str:
    """Returns lines of level, subject, cause and nodes, each followed by its fix, and the count per
    level.
    """
    width = max(len(f.finding.what) for f in found)
    lines = []
    for f in found:
        finding, where = f.finding, f" [{names(f.nodes)}]" if f.nodes else ""
        lines.append(f"{finding.level:<8}  {finding.what:<{width}}  {finding.cause}{where}")
        if finding.fix:
            lines.append(f"{'':<8}  {'':<{width}}  -> {finding.fix}")
    counts = [(level, sum(f.finding.level == level for f in found)) for level in LEVELS]
    return "\n".join([*lines, ", ".join(f"{count} {level}" for level, count in counts if count)])
