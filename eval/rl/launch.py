"""Runs verl's GRPO trainer on a start that ``warmstart rl`` prepared: resumes, stops on request and
before a job's time limit, and collects the metrics of all attempts in one file.

    python -m eval.rl.launch FOLDER [verl's key=value ...]
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from common.errors import StageFailed, UserError
from common.exit_codes import DONE, STOPPED, reported
from common.files import follow_jsonl, intact_lines, write_jsonl, write_lock
from common.processes import die_with_parent
from common.ray_session import ray_session
from eval.rl.invocation import Invocation
from trainer.process.deadline import Deadline, job_end, save_seconds
from trainer.process.gpu_binding import drop_amd
from trainer.process.stop_signal import SIGNALS
from trainer.run.folder import lock_of
from trainer.run.rl_start import RlAttempt, RlStart

POLL_SECONDS = 1
WORKERS = 16
"""Minimum number of CPUs that Ray offers: each of verl's actors reserves one, and few work at a
time.
"""
STATE = 8
"""Bytes of a checkpoint per byte of the bf16 export: fp32 weights twice, Adam's two averages."""
SHOWN = (
    ("reward", "critic/score/mean", ".3f"),
    ("entropy", "actor/entropy", ".3f"),
    ("tokens", "response_length/mean", ",.0f"),
    ("seconds", "timing_s/step", ".0f"),
)
"""verl's metrics that the line of a step shows."""
TAIL = 20
"""Number of the log's last lines to print when verl fails."""


def main() -> int:
    """Returns 0 when all steps are done, 75 after a stop, 2 for a UserError, otherwise 1."""
    folder, *words = sys.argv[1:]
    drop_amd(os.environ)
    start = RlStart(Path(folder).resolve())
    return reported(lambda: launch(Invocation.of(start, words)))


def launch(invocation: Invocation) -> int:
    """Runs or resumes verl's trainer; returns the exit code.

    Raises UserError when the GPUs asked for are not there or another process runs the same start,
    and as ``Invocation.check_attention`` does; StageFailed when verl fails.
    """
    start = invocation.start
    if invocation.shows_only:
        return subprocess.call(
            invocation.command(start.root), env=invocation.environment({"RAY_ADDRESS": ""})
        )
    invocation.check_attention()
    with write_lock(lock_of(start.root)):
        done = start.latest
        if done >= invocation.steps:
            print(
                f"{start.root} has done all of its {invocation.steps} steps; to continue: "
                "trainer.total_training_steps=N trainer.total_epochs=M"
            )
            return DONE
        # With the memory that Ray chooses: rollouts and batches pass through its object store.
        gpus = invocation.gpus if invocation.on_cpu else None
        with ray_session(WORKERS, gpus, object_store=None) as ray:
            _check_gpus(invocation, ray.cluster_resources().get("GPU", 0))
            _drop_after(start, done)
            attempt = start.new_attempt()
            print(f"verl's log is {attempt.log}", flush=True)
            address = ray.get_runtime_context().gcs_address
            return _Trainer(invocation, attempt, done).run(address)


def _check_gpus(invocation: Invocation, there: float) -> None:
    if there < invocation.gpus:
        trainer = invocation.values.trainer
        raise UserError(
            f"trainer.nnodes={trainer.nnodes} and trainer.n_gpus_per_node={trainer.n_gpus_per_node}"
            f" ask for {invocation.gpus} GPUs, and Ray has {there:g}: give others, or sbatch "
            "slurm/rl.sh"
        )


def _drop_after(start: RlStart, step: int) -> None:
    """Drops the metrics of steps that will be repeated."""
    kept = _lines(start.metrics)
    write_jsonl(start.metrics, [line for line in kept if line["step"] <= step and step])


def _lines(path: Path) -> list[dict[str, Any]]:
    return list(intact_lines(path)[0].values()) if path.exists() else []


def _shown(line: dict[str, Any], steps: int) -> str:
    """Returns a step's metrics as one line; verl writes null for what is not a number."""
    data = {key: value for key, value in line["data"].items() if value is not None}
    parts = [f"step {line['step']}/{steps}"]
    held_out = [value for key, value in data.items() if re.match(r"val-core/.+/acc/", key)]
    parts += [f"held-out {value:.3f}" for value in held_out[:1]]
    parts += [f"{name} {data[key]:{form}}" for name, key, form in SHOWN if key in data]
    return "  ".join(parts)


class _Trainer:
    """verl's trainer as a child process in its own session, so that a terminal's Ctrl-C reaches
    only this process.
    """

    def __init__(self, invocation: Invocation, attempt: RlAttempt, done: int) -> None:
        self._invocation, self._attempt, self._done = invocation, attempt, done
        self._deadline = Deadline(job_end(os.environ))
        self._saved = 0.0
        weights = invocation.model.glob("*.safetensors")
        self._state = STATE * sum(path.stat().st_size for path in weights)
        self._asked, self._interrupts, self._killed = False, 0, False
        for number in SIGNALS:
            signal.signal(number, self._ask)

    def run(self, address: str) -> int:
        """Runs it to its end; returns the exit code. Raises StageFailed when verl fails."""
        attempt, invocation = self._attempt, self._invocation
        words = invocation.command(attempt.root, attempt)
        if self._done:
            words.append("trainer.val_before_train=false")
        with attempt.log.open("wb") as log:
            child = subprocess.Popen(
                words,
                env=invocation.environment({"RAY_ADDRESS": address}),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
            self._follow(child)
        if child.returncode == 0 and self._done >= invocation.steps:
            return DONE
        if self._asked and (child.returncode == 0 or self._killed):
            return STOPPED
        tail = attempt.log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL:]
        print("\n".join(tail), file=sys.stderr)
        raise StageFailed(
            f"verl's trainer ended with {child.returncode} after step {self._done} of "
            f"{invocation.steps}: its log is {attempt.log}"
        )

    def _follow(self, child: subprocess.Popen[bytes]) -> None:
        """Waits for the trainer's end; collects each step's metrics and passes on stop requests."""
        news = follow_jsonl(self._attempt.metrics)
        with self._invocation.start.metrics.open("a", encoding="utf-8") as kept:
            while True:
                over = child.poll() is not None
                for line in iter(lambda: next(news), None):
                    kept.write(json.dumps(line) + "\n")
                    kept.flush()
                    self._stepped(line)
                if over:
                    return
                if self._deadline.near(
                    save_seconds(self._state, self._invocation.gpus, self._saved)
                ):
                    self._asked = True
                if self._asked and not self._attempt.stop.exists():
                    self._attempt.stop.touch()
                    print("stopping after this step (Ctrl-C again: at once)", flush=True)
                # Before its first step there is nothing to save.
                if self._interrupts > 1 or (self._asked and not self._attempt.metrics.exists()):
                    self._killed = True
                    child.kill()
                time.sleep(POLL_SECONDS)

    def _stepped(self, line: dict[str, Any]) -> None:
        self._done, data = line["step"], line["data"]
        seconds = [data.get(f"timing_s/{name}") or 0.0 for name in ("step", "testing")]
        self._saved = max(self._saved, data.get("timing_s/save_checkpoint") or 0.0)
        if seconds[0]:
            self._deadline.stepped(sum(seconds))
        print(_shown(line, self._invocation.steps), flush=True)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        # Slurm may ask more than once; a person who does is in a hurry.
        self._interrupts += number == signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
