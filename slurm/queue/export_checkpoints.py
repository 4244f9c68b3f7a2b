"""Exports a run's checkpoints in the background of its training job, so that no evaluation job
holds idle GPUs while it exports.

Runs one export at a time, at the lowest priority. The evaluation job itself makes an export that
failed here or was not done when training ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from threading import Event

from common.processes import die_with_parent
from trainer.run.folder import Run

POLL_SECONDS = 5.0
WAIT_SECONDS = 1.0
"""Seconds between two checks of a running export."""
END_SECONDS = 20
"""Seconds that an export has to end before it is killed."""
NICE = ("nice", "-n", "19")


def export_each(
    run: Run,
    command: Callable[[int], Sequence[str]],
    environment: Mapping[str, str],
    over: Event,
    poll: float = POLL_SECONDS,
) -> None:
    """Exports each checkpoint once it is complete, oldest first, until ``over`` is set, which also
    ends a running export. ``command`` returns the command for a step, whose process gets
    ``environment`` in addition to this process's own; each step is tried once.
    """
    tried: set[int] = set()
    while not over.is_set():
        missing = sorted({*run.checkpoints} - {*run.exports} - tried)
        if not missing:
            over.wait(poll)
            continue
        step = missing[0]
        tried.add(step)
        code, said = _run([*NICE, *command(step)], environment, over)
        if code is None:
            return
        print(said, end="", flush=True)
        if code:
            print(
                f"warmstart: step {step} was not exported during training (exit code {code}): "
                "the job that evaluates it will export it",
                flush=True,
            )


def _run(
    words: Sequence[str], environment: Mapping[str, str], over: Event
) -> tuple[int | None, str]:
    """Returns a command's exit code and output; no code if ``over`` ended it."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        # Linux ends the child when this thread ends.
        child = subprocess.Popen(
            words,
            env=os.environ | environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent,
        )
        while child.poll() is None:
            if over.wait(WAIT_SECONDS):
                _end(child)
                return None, ""
        output.seek(0)
        return child.returncode, output.read()


def _end(child: subprocess.Popen[bytes]) -> None:
    child.send_signal(signal.SIGINT)  # on which Python lets go of the lease
    try:
        child.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
