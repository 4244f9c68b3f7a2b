"""The stopwatch on a CPU, beside a clock of the test's own."""

import pytest

from trainer.engine import stopwatch
from trainer.engine.stopwatch import Stopwatch, seconds


def test_laps_add_up_and_taking_them_resets(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(stopwatch, "get_device_name", lambda: "cpu")
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: clock[0])
    watch = Stopwatch()
    assert seconds(watch.take()) == 0
    for lap in (1.0, 2.5):
        with watch.lap():
            clock[0] += lap
        clock[0] += 40  # between laps
    first = watch.take()
    assert seconds(watch.take()) == 0
    with watch.lap():
        clock[0] += 0.25
    assert seconds(watch.take()) == 0.25
    assert seconds(first) == 3.5
