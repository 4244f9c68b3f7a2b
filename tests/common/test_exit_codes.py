"""What a command's errors become."""

import io
import os

import pytest

from common.exit_codes import FAILED, reported


def test_a_reader_that_ends_early_ends_the_command_quietly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As of ``warmstart plan RECIPE | head``."""
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "w") as pipe:
        monkeypatch.setattr("sys.stdout", pipe)

        def work() -> int:
            print("x" * 10 * io.DEFAULT_BUFFER_SIZE)
            return 0

        assert reported(work) == FAILED
        print("no more errors", flush=True)
    assert capsys.readouterr().err == ""


def test_another_broken_pipe_is_a_bug() -> None:
    def work() -> int:
        raise BrokenPipeError

    with open(os.devnull, "w") as out, pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", out)
        with pytest.raises(BrokenPipeError):
            reported(work)
