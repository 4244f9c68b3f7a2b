"""Whatever is killed under an evaluation, every rollout is there once in the end, and the figures
are the ledger's.

Real vLLM engines, started by the real command. A campaign kills again and again, at random moments,
and runs the command again where it was killed itself.
"""

import contextlib
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from statistics import fmean

import psutil
import pytest

from common.files import read_json
from eval.generation.generate import rollout_seed
from tests.conftest import environment, lines
from trainer.recipe import load as configs
from trainer.run.folder import Run

PROBLEMS, ROLLOUTS = 40, 16
RECIPE = [
    "data.arithmetic.problems=400",
    "data.spare_share=0",
    "eval.rollouts=16",
    "eval.max_tokens=96",
    "eval.concurrency=16",
]
PREPARE = """
import sys
from trainer.recipe import load as configs
from trainer.run import frozen_config
from trainer.run.base_model import materialise
config = configs.load("tiny", sys.argv[1:])
frozen_config.start(config)
materialise(config)
"""
CAMPAIGNS = [
    ("engine", "worker", "driver"),
    ("node", "worker", "engine"),
    ("worker", "node", "driver", "engine"),
]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a base model of random weights, and its 40 held-out problems."""
    folder = tmp_path_factory.mktemp("evaluation")
    for command in (["-m", "warmstart", "data", "tiny", *RECIPE], ["-c", PREPARE, *RECIPE]):
        subprocess.run(
            [sys.executable, *command], cwd=folder, env=environment(), check=True, timeout=600
        )
    return folder


class Evaluation:
    """The command at work on the base model in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with (folder / "output").open("a") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "warmstart", "eval", "tiny", "base"],
                cwd=folder,
                env=environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self) -> str:
        return (self.folder / "output").read_text()

    def kill(self, what: str, draw: random.Random) -> None:
        """SIGKILL of a vLLM core, of a Ray worker with an engine, of the command, or of all there
        is.
        """
        victims: list[psutil.Process] = []
        while not victims:
            assert self.process.poll() is None, self.output
            everything = [
                psutil.Process(self.process.pid),
                *psutil.Process(self.process.pid).children(recursive=True),
            ]
            victims = {
                "engine": [p for p in everything if "EngineCore" in _title(p)],
                "worker": [p for p in everything if _title(p).startswith("ray::Engine")],
                "driver": everything[:1],
                "node": everything,
            }[what]
            time.sleep(0.02)
        for victim in victims if what == "node" else [draw.choice(victims)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()

    def leftovers(self) -> list[str]:
        """Processes that work in the folder or have its engines' logs open."""
        engines = (
            p
            for p in psutil.process_iter()
            if "EngineCore" in _title(p) or _title(p).startswith("ray::Engine")
        )
        return [_title(p) for p in engines if str(self.folder) in _log(p)]


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _log(process: psutil.Process) -> str:
    try:
        return str(Path(f"/proc/{process.pid}/fd/1").readlink())
    except OSError:
        return ""


def count(ledger: Path) -> int:
    return ledger.read_bytes().count(b"\n") if ledger.exists() else 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(len(CAMPAIGNS)))
def test_every_rollout_comes_once_whatever_is_killed(
    prepared: Path, tmp_path: Path, seed: int
) -> None:
    folder, draw = tmp_path / "run", random.Random(seed)
    shutil.copytree(prepared, folder)
    moments = sorted(draw.sample(range(PROBLEMS * ROLLOUTS * 9 // 10), len(CAMPAIGNS[seed])))
    evaluation = Evaluation(folder)
    for what, moment in zip(CAMPAIGNS[seed], moments, strict=True):
        while (
            evaluation.process.poll() is None
            and sum(map(count, folder.glob("runs/*/evals/*/rollouts.jsonl"))) < moment
        ):
            time.sleep(0.02)
        assert evaluation.process.poll() is None, evaluation.output
        evaluation.kill(what, draw)
        if what in ("driver", "node"):
            evaluation.process.wait(60)
            deadline = time.monotonic() + 20
            while evaluation.leftovers() and time.monotonic() < deadline:
                time.sleep(0.1)
            assert evaluation.leftovers() == []
            evaluation = Evaluation(folder)
        else:
            time.sleep(1)
    assert evaluation.process.wait(900) == 0, evaluation.output
    check(folder)


def check(folder: Path) -> None:
    """Every key once, with its own seed; the figures are those of the ledger, counted by hand."""
    (found,) = Run(folder / "runs" / "tiny").evaluations
    problems, rollouts = lines(found / "problems.jsonl"), lines(found / "rollouts.jsonl")
    keys = [tuple(r["key"]) for r in rollouts]
    assert len(problems) == PROBLEMS
    assert Counter(keys) == {("heldout", p["id"], k): 1 for p in problems for k in range(ROLLOUTS)}
    seed = configs.load("tiny", RECIPE).eval.seed
    assert [r["seed"] for r in rollouts] == [rollout_seed(seed, key) for key in keys]
    grades = {tuple(g["key"]): g for g in lines(found / "grades.jsonl")}
    right = [[grades["heldout", p["id"], k]["exact"] for k in range(ROLLOUTS)] for p in problems]
    total = read_json(found / "metrics.json")["total"]
    assert total["rollouts"] == PROBLEMS * ROLLOUTS
    assert total["pass@1"] == pytest.approx(fmean(map(fmean, right)))
    assert total["any@16"] == fmean(map(any, right)) and total["perfect@16"] == fmean(
        map(all, right)
    )
    assert total["hit_budget"] == pytest.approx(
        fmean(r["finish_reason"] == "length" for r in rollouts)
    )
    assert total["states"] == Counter(g["state"] for g in grades.values())
    assert total["tokens"]["mean"] == pytest.approx(fmean(r["tokens"] for r in rollouts))
