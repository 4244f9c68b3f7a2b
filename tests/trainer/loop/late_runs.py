"""Runs of the tiny recipe whose steps are recorded at once, or while the next one runs, injured in
the middle of a step.

    python -m tests.trainer.loop.late_runs FOLDER

trains on the dataset below FOLDER and leaves FOLDER/codes.json, and for each run what rank 0 did in
FOLDER/events-NAME: "launch N" and "record N".
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

STEPS, SAVE_EVERY, VALIDATE_EVERY, TRACED = 12, 4, 5, 7
BROKEN, HIT = 2, 3
"""Steps whose gradient is not finite, and in which a rank is signalled: the first one is recorded
late then.
"""
RECIPE = (
    "data.arithmetic.problems=126",
    "data.spare_share=0",
    "data.test_rows=24",
    "train.batch_size=8",
    f"train.max_steps={STEPS}",
    "train.max_tokens_per_gpu=256",
    "train.keep_last=99",
    f"train.save_every={SAVE_EVERY}",
    f"train.validate_every={VALIDATE_EVERY}",
    "model.init.attention_dropout=0.1",
    "train.fused_optimizer=true",
    f"train.profile_steps={TRACED}:{TRACED}",
)
AT_ONCE = "train.stop_on_alarm=[val_loss]"
"""An alarm that so few validations cannot raise."""


class Injury:
    """What happens in the middle of a step of the ranks that are forked from here."""

    def __init__(self) -> None:
        import torch

        from trainer.engine.fsdp import Engine
        from trainer.loop.recorder import Recorder
        from trainer.loop.step import Stepper

        self.broken: Collection[int] = (BROKEN,)
        self.signal: int | None = None
        self.events = Path()
        self._step = 0
        launch, record, forward = Stepper.train, Recorder.record, Engine.forward

        def noted_launch(stepper: Stepper, step: int, **running: Any) -> Any:
            self._step = step + 1
            launched = launch(stepper, step, **running)
            self._note(f"launch {step + 1}")
            return launched

        def noted_record(recorder: Recorder, entry: Any) -> Any:
            self._note(f"record {entry.step}")
            return record(recorder, entry)

        def injured_forward(engine: Engine, packed: Any, scale: float = 1.0) -> Any:
            loss, *others = forward(engine, packed, scale)
            if torch.is_grad_enabled() and os.environ["RANK"] == "0" and self._step in self.broken:
                loss = loss * float("nan")
            if os.environ["RANK"] == "1" and self._step == HIT and self.signal is not None:
                os.kill(os.getpid(), self.signal)
            return loss, *others

        Stepper.train, Recorder.record = noted_launch, noted_record
        Engine.forward = injured_forward

    def _note(self, event: str) -> None:
        if os.environ["RANK"] == "0":
            with self.events.open("a", encoding="utf-8") as f:
                f.write(f"{event}\n")


def main(folder: Path) -> None:
    """Runs all in FOLDER."""
    from tests.trainer.loop import tiny_runs
    from trainer.process import cpu_platform

    os.chdir(folder)
    cpu_platform.use("cpu")
    injury, codes = Injury(), {}

    def train(name: str, *words: str) -> None:
        injury.events = folder / f"events-{name}"
        _, ended = tiny_runs.train([*RECIPE, f"run.name={name}", *words], 2)
        codes.setdefault(name, []).append(ended)

    train("once", AT_ONCE)
    train("late")
    for name, number in (("stopped", signal.SIGUSR1), ("killed", signal.SIGKILL)):
        injury.signal = number
        train(name)
        injury.signal = None
        train(name)
    injury.broken = range(1, STEPS + 1)
    train("lost")
    train("lost_once", AT_ONCE)
    (folder / "codes.json").write_text(json.dumps(codes))


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
