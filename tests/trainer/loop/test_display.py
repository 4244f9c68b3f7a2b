"""What is shown of an attempt where it was started: start-up, steps, the last save."""

import time
from dataclasses import replace

import pytest

from common import progress
from tests.trainer.process.test_stopping import STEP
from trainer.loop.display import Display


def test_a_log_has_start_up_every_step_and_the_last_save(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.1)
    steps = [replace(STEP, step=n, total=3) for n in (2, 3)]
    with Display(2) as display:
        time.sleep(0.35)
        started = capsys.readouterr()
        display.show(steps[0])
        time.sleep(0.35)
        display.show(steps[1])
        time.sleep(0.35)
    ended = capsys.readouterr()
    assert started.err.startswith("starting 2 ranks: 0:00:00") and started.out == ""
    assert ended.out.splitlines() == [step.line() for step in steps]
    assert ended.err.startswith("saving the last checkpoint: ") and "starting" not in ended.err
