"""The command of ``train.on_alarm``: what it is given, and that no end of it harms training."""

import subprocess
from pathlib import Path

import pytest

from trainer.loop import on_alarm
from trainer.loop.on_alarm import Command

PARTS = {"KIND": "loss", "STEP": "3", "RUN": "/r", "ROWS": "a b", "RANK": "", "HOST": ""}


def told(capfd: pytest.CaptureFixture[str]) -> list[str]:
    return capfd.readouterr().out.splitlines()


def test_it_gets_the_alarm_by_variables(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = Command(f"env -0 > {tmp_path}/seen; echo secret; echo secret >&2")
    command.start("ALARM (loss) at step 3: high", PARTS)
    command.close()
    entries = (tmp_path / "seen").read_text().split("\0")
    seen = dict(entry.split("=", 1) for entry in entries if entry.startswith("WARMSTART_ALARM"))
    expected = {f"WARMSTART_ALARM_{name}": text for name, text in PARTS.items()}
    assert seen == expected | {"WARMSTART_ALARM": "ALARM (loss) at step 3: high"}
    assert told(capfd) == []


def test_text_of_rows_is_no_part_of_the_command(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    hostile = f"'; touch {ran}; \" $(touch {ran}) `touch {ran}` \n touch {ran}\n & | > {ran} \\"
    command = Command(f'printf %s "$WARMSTART_ALARM$WARMSTART_ALARM_ROWS" > {tmp_path}/seen')
    command.start(hostile + "\0", PARTS | {"ROWS": hostile})
    command.close()
    assert (tmp_path / "seen").read_text() == f"{hostile} {hostile}"
    assert not ran.exists()


@pytest.mark.parametrize(("line", "code"), [("exit 7", 7), ("/no/such/command", 127)])
def test_a_failure_is_one_line_of_the_log(
    line: str, code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    command = Command(line)
    command.start("ALARM", PARTS)
    command.close()
    (said,) = told(capfd)
    assert said.endswith(f"train.on_alarm failed with exit code {code}; training continues")
    assert line not in said


def test_what_cannot_be_started_is_one_line_of_the_log(
    capfd: pytest.CaptureFixture[str],
) -> None:
    # More than the system passes to a process.
    command = Command("true")
    command.start("x" * 10_000_000, PARTS)
    command.close()
    (said,) = told(capfd)
    assert "did not start: " in said and said.endswith("; training continues")


def test_a_command_without_end_blocks_nothing_and_is_killed_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(on_alarm, "LIMIT_SECONDS", 3.0)
    monkeypatch.setattr(on_alarm, "GRACE_SECONDS", 0.1)
    command = Command(f"sleep 600 & echo $! > {tmp_path}/child; wait")
    command.start("ALARM", PARTS)
    (waiting,) = command._waiting
    assert waiting.is_alive(), "start waits"
    command.close()
    assert waiting.is_alive(), "close waits for longer than its grace"
    monkeypatch.setattr(on_alarm, "GRACE_SECONDS", 300.0)
    command.close()
    assert [line.split("train.on_alarm ")[1] for line in told(capfd)] == [
        "was killed after 3 s; training continues"
    ]
    state = ["ps", "-o", "stat=", "-p", (tmp_path / "child").read_text().strip()]
    left = subprocess.run(state, capture_output=True, text=True, check=False).stdout.strip()
    assert left == "" or left.startswith("Z"), "its child still runs"


def test_without_a_command_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(on_alarm.subprocess, "Popen")
    command = Command(None)
    command.start("ALARM", PARTS)
    command.close()
