"""Every benchmark runs, at its smallest size, and every target of the Makefile has its command."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from common.files import write_jsonl
from data_prep.benchmarks.sets import load
from tests.bench.long_think import SETS, items, write_benchmarks
from tests.conftest import ROOT, environment

KEYS = {"case", "metric", "unit", "ours", "peer", "peer_name", "ratio", "limit"}
FAST = {
    "loss": (["1"], "bench-loss"),
    "eval": (["2", "1"], "bench-eval"),
    "data": (["120", "--alone"], "bench-data-alone"),
}
SLOW = {
    "balance": (["1", "1"], "bench-balance"),
    "grade": (["4", "1000", "1"], "bench-grade"),
    "steps": (["4"], "bench-steps"),
    "parts": (["4"], "bench-parts"),
    "plan": (["1"], "bench-plan"),
    "checkpoint": (["1", "64"], "bench-checkpoint"),
    "synth": (["benchmarks", "300", "200"], "bench-synth"),
}
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = re.findall(r"^([a-z-]+):.*##", MAKEFILE, re.MULTILINE)


@pytest.mark.parametrize(
    "name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_it_runs_and_writes_its_rows(name: str, tmp_path: Path) -> None:
    words, table = (FAST | SLOW)[name]
    if name == "synth":
        write_gsm8k(tmp_path / "benchmarks")
    command = [sys.executable, "-m", f"tests.bench.bench_{name}", *words]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    # A checkpoint as small as this one may be written as fast as it is copied.
    assert done.returncode == 0 or "holds up training" in done.stderr, done.stderr
    (path,) = (tmp_path / ".bench").iterdir()
    assert path.name == f"{table}.json"
    rows = json.loads(path.read_text())
    assert rows and all(row.keys() == KEYS for row in rows)
    assert all(isinstance(row["ours"], float | int) for row in rows)


def write_gsm8k(folder: Path) -> None:
    """Generated problems in the form of GSM8K's two files."""
    write_benchmarks(folder)
    problems = items("gsm8k_train")

    def solved(i: int) -> dict[str, str]:
        solution = f"There are {i}+1=<<{i}+1={i + 1}>>{i + 1} of them.\n#### {i + 1}"
        return {**problems[i], "answer": str(i + 1), "solution": solution}

    write_jsonl(folder / "gsm8k_train.jsonl", map(solved, range(len(problems))))


def test_the_generated_benchmarks_are_accepted(tmp_path: Path) -> None:
    write_benchmarks(tmp_path / "benchmarks")
    problems = load(tmp_path / "benchmarks", list(SETS), None)
    assert {p.set for p in problems} == set(SETS)
    assert {p.set for p in problems if int(p.answer) > 999} == {"amc2023", "math500", "gsm8k_test"}


def test_every_benchmark_is_run_by_a_target_and_by_this_test() -> None:
    modules = {
        path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py")
    }
    assert modules == FAST.keys() | SLOW.keys()
    assert modules == set(re.findall(r"tests\.bench\.bench_(\w+)", MAKEFILE))


def test_every_target_has_its_command() -> None:
    assert len(TARGETS) > 20
    for module in re.findall(r"-m (tests[\w.]+)", MAKEFILE):
        assert (ROOT / module.replace(".", "/")).with_suffix(".py").exists(), module
    for path in re.findall(
        r"(?:^\t@?|pytest [^\n]*?)((?:tools|tests)/[\w./]+)", MAKEFILE, re.MULTILINE
    ):
        assert (ROOT / path).exists(), path
    (phony,) = re.findall(r"^\.PHONY: ((?:.*\\\n)*.*)$", MAKEFILE, re.MULTILINE)
    assert set(phony.replace("\\\n", " ").split()) == set(TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_make_can_plan_it(target: str) -> None:
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout, done.stderr
