"""Starts the ranks of one attempt and answers for them: signals forwarded, no orphan, one exit code.

torchrun is not used: it turns exit 75 into 1, leaves its ranks behind on SIGUSR1, and kills them 30 s
after SIGTERM, in the middle of a save.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO

from omegaconf import DictConfig
from tqdm import tqdm

from data_prep.files import read_json, writer
from trainer import config as configs
from trainer import loop, models, ranks, rundir
from trainer.metrics import StepMetrics, follow
from trainer.stopping import SIGNALS, STOPPED, StopRequest

CRASH_GRACE_SECONDS = 10
"""How long ranks may take to report after another one has crashed; none can save without it."""
POLL_SECONDS = 0.2


def train(config: DictConfig) -> int:
    """Trains ``config``'s run from where it stands to its end; returns the exit code.

    Starts ``train.ranks`` processes here; under srun this process is one rank. Raises ValueError when the
    run was started with other values, or another process is writing it.
    """
    if not ranks.under_slurm(os.environ):
        return _launch(config)
    stop = StopRequest()
    os.environ.update(ranks.slurm_environment(os.environ))
    if os.environ["RANK"] != "0":
        return loop.train(rundir.Run.of(config), None, config, stop)
    with _attempt(config) as (run, attempt):
        return loop.train(run, attempt, config, stop)


@contextmanager
def _attempt(config: DictConfig) -> Iterator[tuple[rundir.Run, Path]]:
    """The run, held as its one writer, and the folder of a new attempt with its frozen configuration."""
    run = rundir.start(config)
    with writer(run.lock):
        models.materialise(config)
        attempt = run.new_attempt()
        configs.write(config, attempt / "config.yaml")
        yield run, attempt


def _launch(config: DictConfig) -> int:
    with _attempt(config) as (run, attempt), (attempt / "log").open("w", encoding="utf-8") as log:
        processes = _spawn(run, attempt, config, log)
        with _forwarding(processes):
            codes = _wait(processes, attempt)
        outcome = attempt / loop.OUTCOME
        if outcome.exists():
            return loop.exit_code(read_json(outcome)["status"])
        if STOPPED in codes:
            return STOPPED
        tail = (attempt / "log").read_text(encoding="utf-8", errors="replace").splitlines()[-20:]
        failed = ", ".join(f"rank {r} exited {code}" for r, code in enumerate(codes) if code)
        print("\n".join(tail), file=sys.stderr)
        print(f"training failed ({failed}); the whole log is {attempt / 'log'}", file=sys.stderr)
        return 1


def _spawn(run: rundir.Run, attempt: Path, config: DictConfig, log: IO[str]) -> list[subprocess.Popen[bytes]]:
    """One process a rank, each in a session of its own so that a terminal's Ctrl-C reaches only us."""
    count = config.train.ranks
    threads = str(max(1, (os.cpu_count() or 1) // count))
    common = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    if config.device == "cpu":
        common |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": threads}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "trainer.loop", str(run.root), str(attempt)],
            env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        for rank in range(count)
    ]


def _die_with_parent() -> None:
    """Asks Linux to kill this process when its parent is gone (prctl PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextmanager
def _forwarding(processes: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Passes every stop signal on to all ranks, for as long as they take."""

    def forward(number: int, frame: FrameType | None) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(processes: list[subprocess.Popen[bytes]], attempt: Path) -> list[int]:
    """Waits for all ranks, showing their progress; after a crash the others are ended. Returns their exit codes."""
    crashed: float | None = None
    with tqdm(unit="step", disable=not sys.stderr.isatty()) as bar:
        steps = follow(attempt / "metrics.jsonl")
        while any(process.poll() is None for process in processes):
            time.sleep(POLL_SECONDS)
            _show(steps, bar)
            if crashed is None and any(process.poll() for process in processes):
                crashed = time.monotonic()
            if crashed is not None and time.monotonic() > crashed + CRASH_GRACE_SECONDS:
                for process in processes:
                    process.kill()
        _show(steps, bar)
    return [process.wait() for process in processes]


def _show(steps: Iterator[StepMetrics | None], bar: tqdm) -> None:
    while (step := next(steps)) is not None:
        if bar.disable:
            print(step.line(), flush=True)
            continue
        bar.total = step.total
        bar.set_postfix(loss=f"{step.loss:.4f}", tokens_per_s=f"{step.tokens_per_s:,.0f}", refresh=False)
        bar.update(step.step - bar.n)
