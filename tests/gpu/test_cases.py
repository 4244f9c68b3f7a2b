"""The cases themselves, tiny on a CPU: all of them in a rehearsal, most of them in every run of the
tests.

    python -m tests.gpu.test_cases FOLDER

runs those, each forked from this process, where verl is imported once.
"""

import importlib
import multiprocessing
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from tests.conftest import ROOT, environment
from tests.gpu import bench as benches
from tests.gpu import rows, training
from tests.gpu.bench import Bench
from tests.gpu.cases import CASES
from tests.gpu.rows import FAILED, PASSED, SKIPPED, Row
from tests.gpu.runner import environment as single_rank
from tests.gpu.setting import rehearsal
from tests.gpu.training import waits_among
from trainer.batching.balance import plan_step
from trainer.planning import memory
from trainer.planning.cluster import Cluster
from trainer.planning.hardware import GPUS
from trainer.planning.step_time import step_time
from trainer.recipe import load as configs

LIGHT = ("device", "attention", "loss", "model", "ours", "save", "resume", "qlora")
"""Compiling, other trainers and vLLM take minutes."""
SHARED = (
    "trainer.engine.fsdp",
    "trainer.engine.qlora",
    "trainer.engine.build",
    "trainer.loop.step",
    "trainer.checkpoint.saver",
    "tests.gpu.model",
    "tests.gpu.kernels",
    "tests.gpu.saving",
    "transformers.models.qwen3.modeling_qwen3",
)
"""Modules that take long to import."""

Rows = dict[tuple[str, str], Row]


def by_name(out: Path) -> Rows:
    return {(row.case, row.metric): row for row in rows.read(out).rows}


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    folder = tmp_path_factory.mktemp("light")
    variables = environment() | single_rank("cpu") | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.gpu.test_cases", str(folder)],
        cwd=ROOT,
        env=variables,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return by_name(folder / "check.jsonl")


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    out = tmp_path_factory.mktemp("rehearsal") / "check.jsonl"
    command = [sys.executable, "-m", "tests.gpu.check", "--rehearse", "--out", str(out)]
    variables = environment() | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    return by_name(out)


def test_every_case_leaves_figures_and_none_fails(light: Rows) -> None:
    assert {case for case, _ in light} == set(LIGHT)
    assert [row for row in light.values() if row.status == FAILED] == []
    skipped = {key for key, row in light.items() if row.status == SKIPPED}
    assert skipped <= {("ours", "causal MFU"), ("ours", "host waits")}


@pytest.mark.parametrize(
    ("case", "metric"),
    [("attention", f"sdpa {name}") for name in ("out", "dq", "dk", "dv")]
    + [
        ("loss", name)
        for name in (
            "losses",
            "hidden's gradient",
            "weight's gradient",
            "mean loss",
            "mean entropy",
        )
    ],
)
def test_kernels_are_held_to_a_reference(light: Rows, case: str, metric: str) -> None:
    row = light[case, metric]
    assert row.limit is not None and row.ours is not None and row.ours < 1e-5 < row.limit


def test_a_resume_changes_no_loss(light: Rows) -> None:
    for case in ("resume", "qlora"):
        assert light[case, "state after the resume"].ours == 0
        assert light[case, "losses after the resume"].ours == 0
    assert light["qlora", "rows/s"].ours


def test_memory_stands_beside_the_forecast(light: Rows) -> None:
    row = light["ours", "peak resident set of plan"]
    assert row.peer_name == "the planner's" and row.peer and row.ratio


def test_a_steps_forecast_is_that_of_the_recipes_own_settings(tmp_path: Path) -> None:
    """On a GPU it stands beside the measured step."""
    case = next(case for case in CASES if case.name == "ours")
    bench = Bench(rehearsal(), tmp_path, tmp_path / "check.jsonl", case)
    found = []
    for words in ([], ["train.compile=false"]):
        config = configs.load("sft_4b", [f"model.path={tmp_path}", *words])
        setup, lengths = training.layout(bench, config), bench.step_lengths(config)[0]
        found.append(training.planned_seconds(bench, config, setup, "a100-40", lengths))
        plan = plan_step(lengths, 1, 20_480, bench.shape(config)).micro_batches
        alone = Cluster(GPUS["a100-40"], 1, 1, 1.0)
        own = memory.Setup(1, 1, 0, "selective", False, 4, True, False, True, compiled=not words)
        assert found[-1] == step_time(bench.shape(config), own, alone, plan, lengths).total
    assert found[0] < found[1]


def test_waits_for_the_device_are_named_by_their_place() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.warn("called a synchronizing CUDA operation (Triggered internally)", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
    assert waits_among(caught) == [f"test_cases.py:{caught[0].lineno}"]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_rehearsal_runs_every_case(rehearsed: Rows) -> None:
    short = {case.name for case in CASES if not case.long}
    assert {case for case, _ in rehearsed} == short
    for case in ("eager", "verl-fused", "trl", "trl-qlora"):
        assert rehearsed[case, "loss parity"].status == PASSED, case
        assert rehearsed[case, "tokens/s"].ratio
    assert rehearsed["turns", "rollouts cut"].ours == 0


def main(folder: Path) -> None:
    """Runs the light cases in order."""
    from trainer.process import cpu_platform

    setting, out = rehearsal(), folder / "check.jsonl"
    rows.append(out, {rows.RUN: {"device": "CPU"}})
    cpu_platform.use(setting.device)
    for name in SHARED:
        importlib.import_module(name)
    cases = [case for case in CASES if case.name in LIGHT]
    Bench(setting, folder, out, cases[0]).config()
    context = multiprocessing.get_context("fork")
    for case in cases:
        process = context.Process(target=benches.run, args=(Bench(setting, folder, out, case),))
        process.start()
        process.join()
        if process.exitcode:
            sys.exit(f"{case.name}: exit code {process.exitcode}")


if __name__ == "__main__":
    os.environ |= single_rank("cpu")
    main(Path(sys.argv[1]))
