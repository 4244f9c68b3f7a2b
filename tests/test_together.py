"""Tests that share a long fixture run in one worker, and start first."""

from tests.together import group, place

LINE = (
    "tests/line/test_line.py",
    "tests/docs/test_run.py",
    "tests/trainer/engine/test_numerics.py",
)
SHORT = ("tests/trainer/loop/test_loop.py", "tests/trainer/rehearsal/test_rehearse.py")
ALONE = "tests/common/test_text.py"


def test_files_of_a_long_fixture_are_one_group_that_starts_first() -> None:
    assert {group(file) for file in LINE} == {"line"}
    assert {group(file) for file in SHORT} == {"short_run"}
    assert group(ALONE) == ALONE
    assert 0 == place(LINE[0]) < place(SHORT[0]) < place(ALONE)
