"""The rules of the layout: imports point one way, heavy packages stay out of light modules, modules stay short."""

import ast
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

ALLOWED = {
    "data_prep": {"data_prep"},
    "trainer": {"data_prep", "trainer"},
    "eval": {"data_prep", "trainer", "eval"},
    "slurm": {"data_prep", "trainer", "slurm"},
}
PACKAGES = ("data_prep", "trainer", "eval", "recipes", "slurm")
MODULES = sorted(p for name in ALLOWED for p in (ROOT / name).rglob("*.py"))
LIGHT = (
    "data_prep.schema", "data_prep.build", "data_prep.chat", "data_prep.answers", "data_prep.benchmarks",
    "trainer.config", "trainer.rundir", "trainer.launcher", "trainer.status", "trainer.sampler",
    "trainer.balance", "trainer.flops", "trainer.gpus", "trainer.planning.plan", "trainer.metrics",
    "trainer.doctor.examine", "trainer.prefetch",
    "eval.evaluate", "eval.generation", "eval.grading", "eval.metrics", "eval.report", "eval.card", "eval.compare",
    "eval.tables", "eval.page.write", "warmstart",
    "eval.readiness", "eval.rl.prepare", "eval.rl.reward",
    "slurm.job", "slurm.rank", "slurm.ray_node", "slurm.watch",
)  # fmt: skip
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


def test_only_config_imports_hydra() -> None:
    assert [p for p in MODULES if "hydra" in imported(p)] == [ROOT / "trainer" / "config.py"]


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_import_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_modules_are_short_and_say_why_they_exist() -> None:
    lengths = {p: len(p.read_text().splitlines()) for p in MODULES if p.name != "__init__.py"}
    assert max(lengths.values()) <= 300
    assert statistics.median(lengths.values()) <= 130
    assert [p for p in lengths if not ast.get_docstring(ast.parse(p.read_text()))] == []
    assert all((ROOT / name / "__init__.py").read_text() == "" for name in PACKAGES)
