"""Code inside the ranks of a trial: each records the rows it trains, and can be told to fail.

INJURY in the environment is JSON: the name of a function below and its arguments. Steps are counted
from 0 where a step is run and by their number, from 1, where it is saved, as in the trainer.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from trainer.batching import sampler
from trainer.batching.dataset import TokenDataset
from trainer.checkpoint import checkpoint, rng
from trainer.loop.step import Stepper
from trainer.run.folder import Run, is_complete

RANK = int(os.environ.get("RANK", "0"))
FILE_BYTES = 100_000
"""Less than any shard has, and more than any other file that a rank writes."""


def install() -> None:
    """Called once, before a rank's own code runs."""
    run, attempt = (Path(word) for word in sys.orig_argv[-3:-1])
    _record_rows(attempt / f"rows-rank{RANK}.jsonl")
    if "INJURY" in os.environ:
        name, arguments = json.loads(os.environ["INJURY"])
        globals()[name](Run(run), **arguments)


def before(owner: Any, name: str, act: Callable[..., None]) -> None:
    """From here on ``act`` is called with the arguments of each call of ``owner.name``, just before
    it.
    """
    real = getattr(owner, name)

    @functools.wraps(real)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        act(*arguments, **named)
        return real(*arguments, **named)

    setattr(owner, name, wrapped)


def before_step(act: Callable[[int], None]) -> None:
    """From here on ``act`` is called with the number of each step, from 0, just before it."""
    before(Stepper, "train", lambda stepper, at, **_: act(at))


def _record_rows(path: Path) -> None:
    """A line a step: the ids of the rows that this rank read for it, in their order. One thread
    reads them, a step ahead.
    """
    read: list[str] = []
    of_step: dict[int, list[str]] = {}
    before(TokenDataset, "__getitem__", lambda rows, i: read.append(rows.id(i)))
    prepare, real = Stepper.prepare, Stepper.train

    def prepare_and_note(self: Stepper, step: int) -> Any:
        read.clear()
        batch = prepare(self, step)
        of_step[step] = list(read)
        return batch

    def train(self: Stepper, step: int, **running: Any) -> Any:
        done = real(self, step, **running)
        with path.open("a", encoding="utf-8") as f:
            f.write(json.dumps({"step": step + 1, "rank": RANK, "ids": of_step.pop(step)}) + "\n")
        return done

    Stepper.prepare, Stepper.train = prepare_and_note, train


def _kill_all() -> None:
    """SIGKILL of the launcher and of all ranks, this one last."""
    launcher = psutil.Process(os.getppid())
    for process in (launcher, *launcher.children()):
        if process.pid != os.getpid():
            process.kill()
    os.kill(os.getpid(), signal.SIGKILL)


def kill_rank(run: Run, rank: int, step: int, share: float) -> None:
    """SIGKILL of one rank in ``step`` or, if it is past, in the first one, when ``share`` of its
    time is over.
    """
    began: list[float] = []

    def act(at: int) -> None:
        began.append(time.monotonic())
        if rank == RANK and at >= step:
            quickest = min((end - begin for begin, end in itertools.pairwise(began)), default=0.0)
            threading.Timer(share * quickest, os.kill, (os.getpid(), signal.SIGKILL)).start()

    before_step(act)


def kill_all_in_a_shard(run: Run, step: int) -> None:
    """SIGKILL of everything while half of rank 1's shard of ``step`` is on the disk."""
    shard = f"{run.partial_checkpoint(step).resolve()}/shard-00002-"

    def act(file: int) -> None:
        if os.readlink(f"/proc/self/fd/{file}").startswith(shard):
            os.ftruncate(file, os.fstat(file).st_size // 2)
            _kill_all()

    before(os, "fsync", act)


def kill_all_before_the_rename(run: Run, step: int) -> None:
    """SIGKILL of everything when all files of ``step`` are there, under their temporary folder."""

    def act(path: Path) -> None:
        if path == run.partial_checkpoint(step):
            _kill_all()

    before(checkpoint, "fsync", act)


def kill_all_before_latest(run: Run, step: int) -> None:
    """SIGKILL of everything when ``step`` is in its place and ``latest`` names the one before."""

    def act(path: Path, text: str) -> None:
        if text == f"step_{step}\n":
            _kill_all()

    before(checkpoint, "write_text", act)


def kill_all_once_saved(run: Run, step: int) -> None:
    """SIGKILL of everything at the border after ``step``, with its checkpoint complete."""

    def act(at: int) -> None:
        if RANK == 0 and at == step:
            while not is_complete(run.checkpoint(step)):
                time.sleep(0.01)
            _kill_all()

    before_step(act)


def signal_in_a_step(run: Run, step: int) -> None:
    """SIGUSR1 to the command."""
    before_step(lambda at: _signal_command(signal.SIGUSR1) if at == step else None)


def signal_in_a_validation(run: Run) -> None:
    """SIGUSR1 to one rank, as from srun, before the second micro-batch of its first validation."""
    real, asked_before = Stepper.validate, []

    def validate(self: Stepper, held_out: TokenDataset, asked: Callable[[], bool]) -> float | None:
        def asked_now() -> bool:
            asked_before.append(True)
            if RANK == 1 and len(asked_before) == 2:
                os.kill(os.getpid(), signal.SIGUSR1)
            return asked()

        return real(self, held_out, asked_now)

    Stepper.validate = validate


def signals_in_every_save(run: Run) -> None:
    """SIGTERM to the command when shards are about to be written, SIGINT and SIGTERM when they
    are.
    """
    before(checkpoint.Writer, "write_data", lambda *_: _signal_command(signal.SIGTERM))
    before(checkpoint, "fsync", lambda path: _signal_command(signal.SIGINT))
    before(checkpoint, "write_text", lambda *_: _signal_command(signal.SIGTERM))


def _signal_command(number: int) -> None:
    if RANK == 0:
        os.kill(os.getppid(), number)


def fill_the_disk(run: Run, saves: list[int]) -> None:
    """Rank 1 cannot write a shard in these saves of the attempt, counted from 1."""
    begun = []

    def act(*_: Any) -> None:
        begun.append(True)
        limit = FILE_BYTES if RANK == 1 and len(begun) in saves else resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    before(checkpoint.Writer, "write_data", act)


def wrong_shape(run: Run, step: int) -> None:
    """A bug: arrays of different shapes meet in a step, for which numpy raises ValueError."""
    before_step(lambda at: np.zeros(2) + np.zeros(3) if at == step else None)


def stop_rank(run: Run, rank: int, step: int) -> None:
    """SIGSTOP, which nobody takes back."""
    before_step(
        lambda at: os.kill(os.getpid(), signal.SIGSTOP) if (RANK, at) == (rank, step) else None
    )


def forget_generators(run: Run) -> None:
    """A resume that leaves out the generators."""
    rng.restore = lambda state: None


def forget_schedule(run: Run) -> None:
    """A resume that leaves out the scheduler, which begins at its first step again."""
    before(
        Stepper,
        "__init__",
        lambda stepper, engine, *_: setattr(engine.lr_scheduler, "last_epoch", 0),
    )


def forget_a_step(run: Run) -> None:
    """A resume whose sampler is one step ahead."""
    real = sampler.step_rows
    sampler.step_rows = lambda step, *arguments: real(step + 1, *arguments)
