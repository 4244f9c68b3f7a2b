"""Lines that move on a terminal of 80 columns; in a log a line every so many seconds; rates from
the first finished item.
"""

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time

import pytest

from common import progress
from tests.conftest import ROOT

PARTS = """
import time
from common.progress import progress, waiting
with waiting("starting Ray"):
    time.sleep(0.7)
with progress("rollouts", 1600) as line:
    line.say("2 of 4 engines, 123,456 tokens/s and a note that is far too long for a terminal")
    time.sleep(2.5)
    for _ in range(16):
        line(100)
        time.sleep(0.1)
    print("a line among them", flush=True)
"""


def seen(columns: int) -> str:
    """What a program of PARTS writes to a terminal of so many columns."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    env = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm"}
    env.pop("COLUMNS", None)
    shown = subprocess.Popen(
        [sys.executable, "-c", PARTS], stdout=follower, stderr=follower, env=env, cwd=ROOT
    )
    os.close(follower)
    parts = []
    while True:
        try:
            part = os.read(leader, 1 << 16)
        except OSError:  # the program has ended
            break
        parts.append(part)
    assert shown.wait() == 0
    os.close(leader)
    return b"".join(parts).decode()


@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_shows_what_starts_and_bars_that_fit(columns: int) -> None:
    text = seen(columns)
    plain = progress_text(text)
    assert "starting Ray  0:00:00" in plain and "0/1,600" in plain
    assert "a line among them" in plain
    last = [line for line in plain.splitlines() if "1,600/1,600" in line][-1]
    assert last.startswith("rollouts") and last.rstrip().endswith("0:00:04")
    assert max(map(len, plain.splitlines())) <= columns


def progress_text(text: str) -> str:
    """Without the terminal's control sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "\n")


class Dumb(io.StringIO):
    """A terminal that cannot move its cursor: only what stays is written."""

    def isatty(self) -> bool:
        return True


def test_only_a_bar_that_took_long_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    for quick, stays in ((60.0, False), (-1.0, True)):
        monkeypatch.setattr(progress, "QUICK", quick)
        shown = Dumb()
        monkeypatch.setattr(sys, "stderr", shown)
        with progress.waiting("starting"), progress.progress("rows", 3) as line:
            line(3)
        assert ("3/3" in shown.getvalue()) == stays
        assert "starting" not in shown.getvalue()


def test_a_log_gets_a_line_from_the_innermost_task_every_so_often(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.2)
    with progress.waiting("building"), progress.progress("rows", 200) as line:
        for _ in range(10):
            line(10)
            time.sleep(0.1)
    lines = capsys.readouterr().err.splitlines()
    assert 3 <= len(lines) <= 5
    assert all(line.startswith("rows: ") and line.endswith(" left") for line in lines)


def test_a_short_task_says_nothing_in_a_log_and_leaves_no_thread(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = threading.active_count()
    with progress.progress("rows", 0) as line, progress.waiting("nothing"):
        line(0)
    assert capsys.readouterr().err == "" and threading.active_count() == before


def test_the_rate_counts_from_the_first_finished_item(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    line = progress.Line("rollouts", 1000, initial=100)
    now = 300.0  # start-up
    assert line.rate is None and line.facts() == ["100/1,000", "0:05:00"]
    line(1)
    now = 310.0
    line(20)
    assert line.rate == 2.0  # 20 in the 10 s since the first one, which took 300 s
    assert line.facts() == ["121/1,000", "2.0/s", "0:07:20 left"]  # (1000 - 121) / 2.0
    line.say("2 engines", left=100)
    now = 340.0
    assert line.facts()[-2:] == ["2 engines", "0:01:10 left"]  # a clock that goes on between items
    line(879)
    assert line.facts() == ["1,000/1,000", "0:05:40"]


def test_bytes_are_shown_as_whole_megabytes() -> None:
    line = progress.Line("MB hashed", 12_345_678, scale=10**6)
    line(9_999_999)
    assert line.facts()[0] == "9/12"
