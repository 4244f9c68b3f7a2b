from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import UserError
from common.records import Grade, Rollout
from eval.generation import rollout_files

ONE = Rollout(("s", "a/1", 0), 7, 'é "x"\n\u2028\ud800', 3, "stop", "engine-0", 0.5)
TWO = Rollout(("s", "a/1", 1), 8, "", 0, "length", "engine-1", 1.5)


def write(path: Path, *rollouts: Rollout) -> None:
    with path.open("a", encoding="utf-8") as f:
        for rollout in rollouts:
            rollout_files.append(f, rollout)


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / rollout_files.ROLLOUTS
    assert rollout_files.read(path) == {}
    write(path, ONE, TWO)
    assert path.read_text().startswith('{"key": ["s", "a/1", 0], ')
    assert list(rollout_files.read(path).items()) == [(ONE.key, ONE), (TWO.key, TWO)]


def test_optional_fields_are_written_where_they_have_a_value(tmp_path: Path) -> None:
    path = tmp_path / rollout_files.ROLLOUTS
    write(path, ONE, replace(TWO, mean_logprob=-0.5, taken_from="s@base-1"))
    first, second = path.read_text().splitlines()
    assert "mean_logprob" not in first and "taken_from" not in first  # as older files
    assert second.endswith(', "mean_logprob": -0.5, "taken_from": "s@base-1"}')
    assert rollout_files.read(path)[TWO.key].mean_logprob == -0.5


def test_a_torn_last_line_is_cut_and_can_be_written_again(tmp_path: Path) -> None:
    path = tmp_path / rollout_files.ROLLOUTS
    write(path, ONE, TWO)
    whole = path.read_bytes()
    for end in range(whole.index(b"\n") + 1, len(whole)):
        path.write_bytes(whole[:end])
        assert list(rollout_files.read(path)) == [ONE.key]
        write(path, TWO)
        assert path.read_bytes() == whole


def test_a_line_is_on_disk_once_appended(tmp_path: Path) -> None:
    path = tmp_path / rollout_files.ROLLOUTS
    with path.open("a") as f:
        rollout_files.append(f, ONE)
        assert rollout_files.read(path) == {ONE.key: ONE}


def test_bad_ledgers(tmp_path: Path) -> None:
    path = tmp_path / rollout_files.ROLLOUTS
    write(path, ONE, TWO, ONE)
    with pytest.raises(UserError, match=r"rollouts.jsonl: rollout \('s', 'a/1', 0\) occurs twice"):
        rollout_files.read(path)
    for line in ("{}", '{"key": ["s", "a"]}', '{"key": ["s", "a", 0], "seed": 1}'):
        path.write_text(line + "\n")
        with pytest.raises(UserError, match=r"rollouts.jsonl: not a rollout"):
            rollout_files.read(path)


def test_grades(tmp_path: Path) -> None:
    path = tmp_path / rollout_files.GRADES
    grades = [
        Grade(ONE.key, "boxed", "5\ud800", True, "timeout"),
        Grade(TWO.key, "truncated", None, False, False),
    ]
    rollout_files.write_grades(path, grades)
    assert list(rollout_files.read_grades(path).values()) == grades
