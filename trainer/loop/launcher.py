"""Starts the ranks of one attempt and answers for them: signals forwarded, no orphan, one exit code.

torchrun is not used: it turns exit 75 into 1, leaves its ranks behind on SIGUSR1, and kills them 30 s
after SIGTERM, in the middle of a save.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO

import psutil
from omegaconf import DictConfig
from tqdm import tqdm

from common import provenance
from common.errors import UserError
from common.exit_codes import FAILED, STOPPED, USAGE
from common.files import read_json, write_json, write_text, writer
from data_prep.tokenizer import token_files
from trainer.batching import sampler
from trainer.checkpoint import resume
from trainer.checkpoint.retention import Retention, prune
from trainer.loop import loop
from trainer.process import process_group, watchdog
from trainer.process.stop_signal import SIGNALS, StopRequest
from trainer.recipe import load as configs
from trainer.run import base_model, folder
from trainer.run.folder import OUTCOME, PROVENANCE
from trainer.run.step_metrics import StepMetrics, follow
from trainer.run.trained_from import identity

CRASH_GRACE_SECONDS = 10
"""How long ranks may take to report after another one has crashed or hung; none can save without it."""
POLL_SECONDS = 0.2


def train(config: DictConfig) -> int:
    """Trains ``config``'s run from where it stands to its end; returns the exit code.

    Starts ``train.ranks`` processes here; under srun this process is one rank. Raises UserError when the
    run was started with other values, another process is writing it, or it cannot go on from its checkpoints.
    """
    if not process_group.under_slurm(os.environ):
        with _attempt(config) as (run, attempt):
            return _launch(run, attempt, config)
    stop = StopRequest()
    os.environ.update(process_group.slurm_environment(os.environ))
    if os.environ["RANK"] == "0":
        with _attempt(config) as (run, attempt):
            return loop.train(run, attempt, config, stop, "env://")
    # Rank 0 answers for the job, so that srun does not kill the others for its code.
    code = loop.train(folder.Run.of(config), None, config, stop, "env://")
    return 0 if code == STOPPED else code


@contextmanager
def _attempt(config: DictConfig) -> Iterator[tuple[folder.Run, Path]]:
    """The run, held as its one writer, and the folder of a new attempt, which goes on from the newest checkpoint.

    Checkpoints are read through and compared with their hashes here, once, before a rank loads anything.
    """
    _check_fits(config)
    run = folder.start(config)
    with writer(run.lock):
        base_model.materialise(config)
        trained_from = identity(config)
        start = resume.choose(run, trained_from)
        resume.prepare(run, start)
        prune(run, Retention.of(config.train))
        attempt = run.new_attempt()
        configs.write(config, attempt / "config.yaml")
        made = {"git": provenance.git_commit(), "versions": provenance.versions()}
        write_json(attempt / PROVENANCE, {**made, "identity": trained_from, "first_step": start.step})
        write_text(attempt / "log", "".join(f"{note}\n" for note in start.notes))
        for note in start.notes:
            print(note, flush=True)
        yield run, attempt


def _check_fits(config: DictConfig) -> None:
    """Raises UserError when the ranks that there are cannot train the dataset's rows."""
    count = int(os.environ["WORLD_SIZE"]) if process_group.under_slurm(os.environ) else config.train.ranks
    if config.train.lora_rank and count > 1:
        raise UserError(f"train.lora_rank is for one rank, and there are {count}: set train.ranks=1, or srun -n 1")
    files = (Path(config.verl.data.train_files), Path(config.verl.data.val_files))
    lengths = (length for file in files for length in token_files.read(file).column("length").to_pylist())
    sampler.check_fits(lengths, config.train, count)


def _launch(run: folder.Run, attempt: Path, config: DictConfig) -> int:
    processes: list[subprocess.Popen[bytes]] = []
    with _forwarding(processes) as forwarded, tempfile.TemporaryDirectory() as meeting:
        with (attempt / "log").open("a", encoding="utf-8") as log:
            for process in _spawn(run, attempt, config, log, f"file://{meeting}/ranks"):
                processes.append(process)
                if forwarded:  # before this rank was there
                    process.send_signal(forwarded[0])
        codes, stuck = _wait(processes, attempt)
    status = read_json(attempt / OUTCOME)["status"] if (attempt / OUTCOME).exists() else None
    hung = _keep_stacks(attempt, len(processes))
    if status in ("finished", "stopped"):
        return loop.exit_code(status)
    if forwarded and not (attempt / "metrics.jsonl").exists():  # before there was anything to save
        return STOPPED
    tail = (attempt / "log").read_text(encoding="utf-8", errors="replace").splitlines()[-20:]
    failed = [f"rank {r} {stuck.get(r, f'exited {code}')}" for r, code in enumerate(codes) if code]
    if hung:
        minutes = f"train.hang_minutes={config.train.hang_minutes}"
        failed.append(f"no sign of life for {minutes} on rank {', '.join(map(str, hung))}: their stacks are in the log")
    print("\n".join(tail), file=sys.stderr)
    print(f"training failed ({'; '.join(failed)}); the whole log is {attempt / 'log'}", file=sys.stderr)
    return USAGE if USAGE in codes else FAILED


def _keep_stacks(attempt: Path, count: int) -> list[int]:
    """Moves what hung ranks left into the attempt's log; returns these ranks."""
    hung = []
    with (attempt / "log").open("a", encoding="utf-8") as log:
        for rank in range(count):
            path = watchdog.stacks(attempt, rank)
            if path.exists() and path.stat().st_size:
                hung.append(rank)
                log.write(f"rank {rank} gave no sign of life; its threads:\n{path.read_text(encoding='utf-8')}\n")
            path.unlink(missing_ok=True)
    return hung


def _spawn(
    run: folder.Run, attempt: Path, config: DictConfig, log: IO[str], rendezvous: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Starts one process a rank, each in a session of its own so that a terminal's Ctrl-C reaches only us."""
    count = config.train.ranks
    common = {"WORLD_SIZE": str(count)}
    if config.device == "cpu":
        threads = str(max(1, len(os.sched_getaffinity(0)) // count))
        common |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": threads, "GLOO_SOCKET_IFNAME": "lo"}
    for rank in range(count):
        yield subprocess.Popen(
            [sys.executable, "-m", "trainer.loop.loop", str(run.root), str(attempt), rendezvous],
            env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )


def _die_with_parent() -> None:
    """Asks Linux to kill this process when its parent is gone (prctl PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


@contextmanager
def _forwarding(processes: list[subprocess.Popen[bytes]]) -> Iterator[list[int]]:
    """Passes every stop signal on to all ranks, for as long as they take; yields the signals passed on."""
    forwarded: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        forwarded.append(number)
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in SIGNALS}
    try:
        yield forwarded
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(processes: list[subprocess.Popen[bytes]], attempt: Path) -> tuple[list[int], dict[int, str]]:
    """Waits for all ranks, showing their progress; after a crash the others are ended.

    Returns (their exit codes, what those were doing that had to be ended, by rank).
    """
    crashed: float | None = None
    stuck: dict[int, str] = {}
    with tqdm(unit="step", disable=not sys.stderr.isatty()) as bar:
        steps = follow(attempt / "metrics.jsonl")
        while any(process.poll() is None for process in processes):
            time.sleep(POLL_SECONDS)
            _show(steps, bar)
            if crashed is None and any(process.poll() for process in processes):
                crashed = time.monotonic()
            if crashed is not None and time.monotonic() > crashed + CRASH_GRACE_SECONDS:
                for rank, process in enumerate(processes):
                    if process.poll() is None:
                        stuck.setdefault(rank, f"did not end by itself ({psutil.Process(process.pid).status()})")
                        process.kill()
        _show(steps, bar)
    return [process.wait() for process in processes], stuck


def _show(steps: Iterator[StepMetrics | None], bar: tqdm) -> None:
    while (step := next(steps)) is not None:
        if bar.disable:
            print(step.line(), flush=True)
            continue
        if bar.total is None:
            bar.initial = bar.n = step.step - 1
            bar.total = step.total
        bar.set_postfix_str(step.line().partition("  ")[2], refresh=False)
        bar.update(step.step - bar.n)
