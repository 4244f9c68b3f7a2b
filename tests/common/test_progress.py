"""A log gets a line every tenth of a long count, and none for what is quickly done."""

import pytest

from common import progress


def count(total: int) -> None:
    with progress.progress("rows", total) as advance:
        for _ in range(total):
            advance(1)


def test_a_line_a_tenth(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LOG_SECONDS", 0)
    count(200)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" rows")[0] for line in lines] == [f"{n} of 200" for n in range(20, 201, 20)]
    assert all("/s, " in line and line.endswith(" s left") for line in lines)


def test_no_line_within_the_first_seconds_and_none_of_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    count(200)
    with progress.progress("rows", 0) as advance:
        advance(0)
    assert capsys.readouterr().err == ""
