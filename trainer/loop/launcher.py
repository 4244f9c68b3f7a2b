"""Starts the ranks of one attempt, forwards signals, leaves no orphan process and returns one exit
code.

torchrun is not used: it turns exit 75 into 1, leaves its ranks running on SIGUSR1, and kills them
30 s after SIGTERM, even during a save.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import IO

import psutil
from omegaconf import DictConfig

from common import provenance
from common.errors import UserError
from common.exit_codes import FAILED, STOPPED, USAGE
from common.files import file_errors, write_json, write_lock, write_text
from common.processes import die_with_parent
from common.progress import waiting
from data_prep.output.folder import dataset_folder, token_file
from data_prep.tokenizer import token_files
from trainer.batching import sampler
from trainer.checkpoint import resume
from trainer.checkpoint.retention import Retention, prune
from trainer.loop import loop
from trainer.loop.display import Display
from trainer.process import process_group
from trainer.process.stop_signal import SIGNALS, StopRequest
from trainer.recipe import load as configs
from trainer.run import base_model, frozen_config
from trainer.run.folder import Attempt, Run
from trainer.run.step_metrics import StepMetrics, follow
from trainer.run.trained_from import model_identity

CRASH_GRACE_SECONDS = 10
"""Seconds that the other ranks may take to exit after one has crashed or hung; they cannot save
without it.
"""
POLL_SECONDS = 0.2


def train(run: Run, config: DictConfig, dataset: str) -> int:
    """Starts or resumes ``run`` and trains to its last step; returns the exit code.

    Starts ``train.ranks`` processes here; under srun this process is one rank. ``config`` has
    passed ``frozen_config.check``; ``dataset`` is the dataset's identity. Raises UserError when the
    ranks cannot train the dataset's rows, another process is writing the run, or it cannot resume
    from its checkpoints.
    """
    if not process_group.under_slurm(os.environ):
        with _attempt(run, config, dataset) as attempt:
            return _launch(run, attempt, config)
    stop = StopRequest()
    os.environ.update(process_group.slurm_environment(os.environ))
    if os.environ["RANK"] == "0":
        with _attempt(run, config, dataset) as attempt:
            return loop.train(run, attempt, config, stop, "env://")
    # Only rank 0 reports a stop in its exit code, so that srun does not kill the other ranks for a
    # non-zero one.
    code = loop.train(run, None, config, stop, "env://")
    return 0 if code == STOPPED else code


@contextmanager
def _attempt(run: Run, config: DictConfig, dataset: str) -> Iterator[Attempt]:
    """Yields a new attempt of the run, which stays locked; it resumes from the newest checkpoint.

    Checkpoint hashes are verified here, once, before any rank loads.
    """
    _check_fits(config)
    with write_lock(run.lock):
        with waiting("checking the base model and the checkpoints"):
            base_model.materialise(config)
            model = model_identity(config.model.path, config.model.revision)
            trained_from = {"dataset": dataset, **model}
            made = {"git": provenance.git_commit(), "versions": provenance.versions()}
            start = resume.choose(run, trained_from)
        # From here on it is a run: what can be wrong with it has been told.
        frozen_config.start(config)
        with file_errors(run.root):
            resume.prepare(run, start)
            prune(run, Retention.of(config.train))
            attempt = run.new_attempt()
            configs.write(config, attempt.config)
            write_json(
                attempt.provenance, {**made, "identity": trained_from, "first_step": start.step}
            )
            write_text(attempt.log, "".join(f"{note}\n" for note in start.notes))
        for note in start.notes:
            print(note, flush=True)
        yield attempt


def _check_fits(config: DictConfig) -> None:
    """Raises UserError when the present number of ranks cannot train the dataset's rows."""
    count = (
        int(os.environ["WORLD_SIZE"])
        if process_group.under_slurm(os.environ)
        else config.train.ranks
    )
    if config.train.lora_rank and count > 1:
        raise UserError(
            f"train.lora_rank needs one rank, but there are {count}: set train.ranks=1, or srun "
            "-n 1"
        )
    files = (token_file(dataset_folder(config), split) for split in ("train", "test"))
    lengths = (
        length for file in files for length in token_files.read(file).column("length").to_pylist()
    )
    sampler.check_fits(lengths, config.train, count)


def _launch(run: Run, attempt: Attempt, config: DictConfig) -> int:
    processes: list[subprocess.Popen[bytes]] = []
    with _forwarding(processes) as forwarded, tempfile.TemporaryDirectory() as meeting:
        with attempt.log.open("a", encoding="utf-8") as log:
            for process in _spawn(run, attempt, config, log, f"file://{meeting}/ranks"):
                processes.append(process)
                if forwarded:  # before this rank was in ``processes``
                    process.send_signal(forwarded[0])
        codes, stuck = _wait(processes, attempt)
    status = attempt.status
    hung = _keep_stacks(attempt, len(processes))
    if status in ("finished", "stopped"):
        return loop.exit_code(status)
    if forwarded and not attempt.metrics.exists():  # training had not started: nothing to save
        return STOPPED
    tail = attempt.log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:]
    failed = [f"rank {r} {stuck.get(r, f'exited {code}')}" for r, code in enumerate(codes) if code]
    if hung:
        minutes = f"train.hang_minutes={config.train.hang_minutes}"
        failed.append(
            f"no progress for {minutes} on rank {', '.join(map(str, hung))}: their stacks are "
            "in the log"
        )
    print("\n".join(tail), file=sys.stderr)
    print(
        f"training failed ({'; '.join(failed)}); the full log is {attempt.log}",
        file=sys.stderr,
    )
    return USAGE if USAGE in codes else FAILED


def _keep_stacks(attempt: Attempt, count: int) -> list[int]:
    """Moves the stack dumps of hung ranks into the attempt's log; returns these ranks."""
    hung = []
    with attempt.log.open("a", encoding="utf-8") as log:
        for rank in range(count):
            path = attempt.stacks(rank)
            if path.exists() and path.stat().st_size:
                hung.append(rank)
                log.write(
                    f"rank {rank} made no progress; its "
                    f"threads:\n{path.read_text(encoding='utf-8')}\n"
                )
            path.unlink(missing_ok=True)
    return hung


def _spawn(
    run: Run, attempt: Attempt, config: DictConfig, log: IO[str], rendezvous: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Starts one process per rank, each in its own session so that a terminal's Ctrl-C reaches only
    the launcher.
    """
    count = config.train.ranks
    common = {"WORLD_SIZE": str(count)}
    if config.device == "cpu":
        threads = str(max(1, len(os.sched_getaffinity(0)) // count))
        common |= {
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": threads,
            "GLOO_SOCKET_IFNAME": "lo",
        }
    for rank in range(count):
        yield subprocess.Popen(
            [
                sys.executable,
                "-m",
                "trainer.loop.loop",
                str(run.root),
                str(attempt.root),
                rendezvous,
            ],
            env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )


@contextmanager
def _forwarding(processes: list[subprocess.Popen[bytes]]) -> Iterator[list[int]]:
    """Forwards every stop signal to all ranks while the context is open; yields the signals
    forwarded so far.
    """
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


def _wait(
    processes: list[subprocess.Popen[bytes]], attempt: Attempt
) -> tuple[list[int], dict[int, str]]:
    """Waits for all ranks and shows their progress; after a crash, kills the ranks that do not exit
    in time.

    Returns (exit codes, {rank: process state} for ranks that had to be killed).
    """
    crashed: float | None = None
    stuck: dict[int, str] = {}
    with Display(len(processes)) as display:
        steps = follow(attempt.metrics)
        while any(process.poll() is None for process in processes):
            time.sleep(POLL_SECONDS)
            _show(steps, display)
            if crashed is None and any(process.poll() for process in processes):
                crashed = time.monotonic()
            if crashed is not None and time.monotonic() > crashed + CRASH_GRACE_SECONDS:
                for rank, process in enumerate(processes):
                    if process.poll() is None:
                        stuck.setdefault(
                            rank, f"did not exit by itself ({psutil.Process(process.pid).status()})"
                        )
                        process.kill()
        _show(steps, display)
    return [process.wait() for process in processes], stuck


def _show(steps: Iterator[StepMetrics | None], display: Display) -> None:
    while (step := next(steps)) is not None:
        display.show(step)
