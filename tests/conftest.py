"""Shared fixtures: one interrupted and resumed run of the whole line, and the real benchmark
files.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import together
from tests.together import Together

# Tests run beside one another, so that a second thread of a process mostly waits for the first.
# torch, which is imported later, reads it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent

# Fewer rows and rollouts than the quickstart, everything else as it is.
SHORT = ["eval.rollouts=4", "data.arithmetic.problems=4000"]
STEPS_BEFORE_STOP = 12

# `short_run`: twenty steps, with every view of them switched on.
STEPS = 20
RECIPE = [
    "data.arithmetic.problems=500",
    "data.spare_share=0",
    "train.batch_size=16",
    f"train.max_steps={STEPS}",
    "train.max_tokens_per_gpu=512",
    "model.init.rope_theta=500000",  # not the default of any version of transformers
]
VIEWS = ["train.loggers=[tensorboard,wandb]", "train.profile_steps=2:3", "train.validate_every=10"]


@dataclass(frozen=True)
class Line:
    """A finished `warmstart run tiny` and what its two attempts printed."""

    folder: Path
    stopped: subprocess.CompletedProcess[str]
    finished: subprocess.CompletedProcess[str]

    @property
    def run(self) -> Path:
        return self.folder / "runs" / "tiny"

    @property
    def data(self) -> Path:
        return self.folder / "data" / "tiny"

    def export(self) -> Path:
        return max(
            (self.run / "export").glob("step_*"), key=lambda p: int(p.name.removeprefix("step_"))
        )


def warmstart(*words: str, folder: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs the command in ``folder`` as a user would."""
    done = subprocess.run(
        [sys.executable, "-m", "warmstart", *words],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert not check or done.returncode == 0, (
        f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    )
    return done


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    return Together(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: together.place(item.nodeid.partition("::")[0]))


@pytest.fixture(scope="session")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    """The tiny line, sent Ctrl-C's signal in the middle of training and run again."""
    folder = tmp_path_factory.mktemp("line")
    command = [sys.executable, "-m", "warmstart", "run", "tiny", *SHORT]
    with (folder / "stdout").open("w+") as out, (folder / "stderr").open("w+") as err:
        process = subprocess.Popen(command, cwd=folder, env=environment(), stdout=out, stderr=err)
        metrics = folder / "runs" / "tiny" / "attempts" / "1" / "metrics.jsonl"
        while process.poll() is None and not (
            metrics.exists() and len(lines(metrics)) >= STEPS_BEFORE_STOP
        ):
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        process.wait()
        stopped = subprocess.CompletedProcess(
            command,
            process.returncode,
            (folder / "stdout").read_text(),
            (folder / "stderr").read_text(),
        )
    assert stopped.returncode == 75, stopped
    return Line(folder, stopped, warmstart("run", "tiny", *SHORT, folder=folder))


@pytest.fixture(scope="session")
def short_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short training run of the tiny recipe on two ranks, with every view of it."""
    folder = tmp_path_factory.mktemp("short")
    warmstart("data", "tiny", *RECIPE, folder=folder)
    warmstart("train", "tiny", *RECIPE, *VIEWS, folder=folder)
    return folder / "runs" / "tiny"


@pytest.fixture(scope="session")
def benchmarks() -> Path:
    """Folder of the real benchmark files: WARMSTART_BENCHMARKS, else shared/data beside the
    checkout.
    """
    folder = Path(os.environ.get("WARMSTART_BENCHMARKS", ROOT.parent / "shared" / "data"))
    if not (folder / "aime2025.jsonl").exists():
        pytest.skip(
            f"no benchmark files in {folder}: set WARMSTART_BENCHMARKS to a folder of <set>.jsonl "
            "files"
        )
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Makes a file system of so many bytes."""
    disk = tmp_path / "disk"

    def mounted(size: int) -> Path:
        disk.mkdir()
        if subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(disk)]
        ).returncode:
            pytest.skip("mounting a small tmpfs needs root")
        return disk

    yield mounted
    if disk.is_mount():
        subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture(scope="session")
def qwen3() -> Any:
    """The genuine Qwen3 vocabulary with our template."""
    from data_prep.tokenizer.tokenizers import genuine_qwen3

    return genuine_qwen3()
