"""What a manifest records of the sentence that states an answer."""

from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import UserError
from data_prep.settings import check_same, recorded
from tests.data_prep.planted import SETTINGS

COLUMNS = {"problem": "problem", "solution": "solution", "answer": "answer"}
STATED = replace(SETTINGS.rows, columns=COLUMNS, answer_style="answer_is")


def test_an_older_dataset_with_two_newlines_before_its_answers_is_told_apart() -> None:
    new = recorded(replace(SETTINGS, rows=STATED), {})
    assert new["thresholds"].pop("answer_is.NEWLINES") == 1
    old, now = new, recorded(replace(SETTINGS, rows=STATED), {})
    with pytest.raises(UserError, match=r"thresholds\.answer_is\.NEWLINES: absent -> 1"):
        check_same(old, now, Path("data/old"))


def test_other_datasets_record_nothing_new() -> None:
    """Boxed answers, and conversations, whose text is their own."""
    for rows in (SETTINGS.rows, replace(STATED, columns={"messages": "messages"})):
        thresholds = recorded(replace(SETTINGS, rows=rows), {})["thresholds"]
        assert "answer_is.NEWLINES" not in thresholds
