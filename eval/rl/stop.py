"""Ends verl's trainer on request: after the current step, with a checkpoint."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

from verl.trainer.ppo.checkpoint_callback import CheckpointCallback

from eval.rl.invocation import STOP

POLL_SECONDS = 1


class StopOnRequest(CheckpointCallback):
    """verl's ``trainer.checkpoint_callback_class``. Once the file that STOP names exists, the
    current step is saved and becomes the last one.
    """

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self._file = Path(os.environ[STOP])
        self.asked = False
        threading.Thread(target=self._watch, daemon=True).start()

    def on_save(
        self,
        trainer: Any,
        global_step: int,
        checkpoint_dir: str,
        async_save: bool = False,
        **kwargs: Any,
    ) -> None:
        """Makes this step the last one if a stop was requested."""
        if self.asked:
            trainer.total_training_steps = global_step

    def _watch(self) -> None:
        while not self._file.exists():
            time.sleep(POLL_SECONDS)
        self.asked = True
        # verl's loop reads it after each step.
        self.config.trainer.save_freq = 1
