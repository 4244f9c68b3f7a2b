"""Which tests one worker of pytest-xdist runs: those of a file, and all files whose tests use the
same long fixture. pytest-xdist's own groups do not work with pytest 9.2 (its issue 1386).
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = {
    "line: Line": "line",
    "site: Site": "cluster",
    "cluster: Cluster": "cluster",
    "trial: Trial": "trial",
    "short_run: Path": "short_run",
    "export: Path": "short_run",
    "library: Path": "library",
    "step: dict[str, Any]": "library",
}
"""Group of the files whose tests have a fixture; the group that takes longest comes first."""
FIRST = tuple(dict.fromkeys(FIXTURES.values()))


@cache
def group(file: str) -> str:
    """Returns the group of a test file, a path relative to the checkout."""
    arguments = {
        ast.unparse(argument)
        for node in ast.walk(ast.parse((ROOT / file).read_text()))
        if isinstance(node, ast.FunctionDef)
        and (node.name.startswith("test_") or node.decorator_list)
        for argument in node.args.args
    }
    return next((FIXTURES[name] for name in FIXTURES if name in arguments), file)


def place(file: str) -> int:
    """Returns where a file's tests stand in the queue: long groups start first."""
    name = group(file)
    return FIRST.index(name) if name in FIRST else len(FIRST)


class Together(LoadScopeScheduling):
    """Gives a worker one group after another."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid.partition("::")[0])
