"""The rules of the layout: imports point one way, heavy packages stay out of light modules, modules
stay short.
"""

import ast
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import ROOT

ALLOWED = {
    "common": {"common"},
    "data_prep": {"common", "data_prep"},
    "trainer": {"common", "data_prep", "trainer"},
    "eval": {"common", "data_prep", "trainer", "eval"},
    "slurm": {"common", "data_prep", "trainer", "slurm"},
    "warmstart": {"common", "data_prep", "trainer", "eval", "slurm", "warmstart"},
}
PACKAGES = (*ALLOWED, "recipes")
ROOM = 14
"""Modules that a folder may hold, beside __init__.py."""
MODULES = sorted(p for name in ALLOWED for p in (ROOT / name).rglob("*.py"))
LIGHT = (
    "common.records",
    "data_prep.answers.boxed",
    "data_prep.benchmarks.sets",
    "data_prep.build",
    "data_prep.tokenizer.chat",
    "eval.card.card",
    "eval.choice.page",
    "eval.evaluate",
    "eval.generation.generate",
    "eval.grading.grade",
    "eval.grading.metrics",
    "eval.report.html.write",
    "eval.report.report",
    "eval.report.rl_readiness",
    "eval.report.tables",
    "eval.results.compare",
    "eval.rl.prepare",
    "eval.rl.reward",
    "slurm.job",
    "slurm.nodes.rank",
    "slurm.nodes.ray_node",
    "slurm.queue.submit_evaluations",
    "trainer.batching.balance",
    "trainer.batching.flops",
    "trainer.batching.sampler",
    "trainer.doctor.doctor",
    "trainer.loop.launcher",
    "trainer.planning.planner",
    "trainer.planning.hardware",
    "trainer.recipe.load",
    "trainer.run.folder",
    "trainer.run.prefetch",
    "trainer.run.status",
    "trainer.run.step_metrics",
    "warmstart.cli",
    "warmstart.commands",
)
HEAVY = ("torch", "verl", "vllm", "ray", "transformers")


def imported(path: Path) -> set[str]:
    """Top-level names of everything a module imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    assert imported(path) & {*PACKAGES, "warmstart"} <= ALLOWED[package]


def test_a_folder_holds_few_modules_and_no_name_is_used_twice_in_a_package() -> None:
    for package in ALLOWED:
        paths = [p for p in (ROOT / package).rglob("*.py") if p.name != "__init__.py"]
        rooms = Counter(p.parent for p in paths)
        assert max(rooms.values()) <= ROOM, rooms.most_common(1)
        assert [
            name for name, count in Counter(p.name for p in paths).items() if count > 1
        ] == [], package


def rooms_imported(path: Path) -> set[Path]:
    """The folders of the project's modules that a module imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.split(".")[0] in ALLOWED
        ):
            place = ROOT.joinpath(*node.module.split("."))
            found.add(place if place.is_dir() else place.parent)
    return found - {path.parent}


def test_rooms_do_not_import_each_other_in_circles() -> None:
    graph: dict[Path, set[Path]] = {}
    for path in MODULES:
        graph.setdefault(path.parent, set()).update(rooms_imported(path))
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_only_one_module_imports_hydra() -> None:
    assert [p for p in MODULES if "hydra" in imported(p)] == [
        ROOT / "trainer" / "recipe" / "load.py"
    ]


FOLDERS = [ROOT / "trainer" / "run" / name for name in ("folder.py", "rl_start.py")]
KNOW_RUNS = ("trainer", "eval", "slurm", "warmstart")


def joined(tree: ast.AST) -> list[ast.expr]:
    """The right side of every ``path / name``."""
    return [
        node.right
        for node in ast.walk(tree)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)
    ]


def texts(nodes: Iterable[ast.AST]) -> list[str]:
    return [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]


def run_names() -> set[str]:
    """Names of a run's files and folders, as folder.py and rl_start.py join them to paths."""
    names = set()
    for path in FOLDERS:
        tree = ast.parse(path.read_text())
        constants = [node.value for node in tree.body if isinstance(node, ast.Assign)]
        listed = [n for node in constants for n in ([node, *getattr(node, "elts", [])])]
        names |= {*texts(joined(tree)), *texts(listed)}
    return names


def run_literals(source: str) -> list[str]:
    """The names of a run's files in a module: file names anywhere, folder names where a path is
    joined, and every name joined to a ``.root``.
    """
    tree, names = ast.parse(source), run_names()
    files = [text for text in texts(ast.walk(tree)) if text in names and "." in text]
    folders = [text for text in texts(joined(tree)) if text in names and "." not in text]
    below = [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.Div)
        and isinstance(node.left, ast.Attribute)
        and node.left.attr == "root"
    ]
    return files + folders + below


@pytest.mark.parametrize(
    "path",
    [p for p in MODULES if p.relative_to(ROOT).parts[0] in KNOW_RUNS and p not in FOLDERS],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_only_the_folder_modules_name_a_runs_files(path: Path) -> None:
    assert run_literals(path.read_text()) == []


def test_a_planted_name_of_a_runs_file_is_found() -> None:
    assert {"config.yaml", "log", "outcome.json", "latest", "checkpoints", "evals"} <= run_names()
    assert {"report.md", "report.html", "requeues.jsonl", "loss.png"} <= run_names()
    for source in (
        "a / 'log'",
        "NAME = 'metrics.jsonl'",
        "read(f'{x}', 'outcome.json')",
        "run.root / name",
    ):
        assert run_literals(source), source
    assert run_literals("{'log': 1, 'checkpoints': folder / 'model'}") == []


def heavy_imports(modules: Iterable[str]) -> str:
    """Imports modules in one process; returns the first that brings a heavy package, with it."""
    code = f"""
import importlib, sys
for module in {tuple(modules)}:
    importlib.import_module(module)
    if found := [name for name in {HEAVY} if name in sys.modules]:
        sys.exit(f"{{module}}: {{found}}")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    return done.stderr.strip()


def test_light_modules_import_nothing_heavy() -> None:
    assert heavy_imports(LIGHT) == ""
    planted = heavy_imports(["common.records", "trainer.engine.loss"])
    assert planted.startswith("trainer.engine.loss: ")


def test_modules_are_short_and_say_why_they_exist() -> None:
    lengths = {p: len(p.read_text().splitlines()) for p in MODULES if p.name != "__init__.py"}
    assert max(lengths.values()) <= 330
    assert statistics.median(lengths.values()) <= 130
    assert [p for p in lengths if not ast.get_docstring(ast.parse(p.read_text()))] == []
    assert all((ROOT / name / "__init__.py").read_text() == "" for name in PACKAGES)
