"""Rows that are left over for RL: a share of the good ones, in no split."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import UserError
from data_prep.build import build
from tests.data_prep.test_build import SETTINGS, rows


def test_a_share_of_the_rows_is_left_over(tmp_path: Path) -> None:
    whole, left = tmp_path / "whole", tmp_path / "left"
    build(whole, SETTINGS)
    build(left, replace(SETTINGS, spare_share=0.1))
    made = [json.loads((folder / "manifest.json").read_text()) for folder in (whole, left)]
    trained = [manifest["rows"]["train"] for manifest in made]
    assert [manifest["rows"]["test"] for manifest in made] == [20, 20]
    assert trained[1] == trained[0] - int(0.1 * trained[0]) and trained[0] > 200
    spare = [json.loads(line) for line in (left / "spare.jsonl").read_text().splitlines()]
    assert len(spare) == trained[0] - trained[1] and (whole / "spare.jsonl").read_text() == ""
    texts = [{row["problem"] for row in rows(folder)} for folder in (whole, left)]
    assert texts[1].isdisjoint(line["problem"] for line in spare)
    assert texts[0] == texts[1] | {line["problem"] for line in spare}


def test_a_dataset_from_before_the_share_existed_has_none(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    build(folder, SETTINGS)
    assert "spare_share" not in json.loads((folder / "manifest.json").read_text())["settings"]
    assert not build(folder, replace(SETTINGS, spare_share=0.0))
    with pytest.raises(UserError, match=r"spare_share: absent -> 0\.2"):
        build(folder, replace(SETTINGS, spare_share=0.2))


def test_with_a_number_of_rows_the_share_does_not_count(tmp_path: Path) -> None:
    build(tmp_path / "d", replace(SETTINGS, train_rows=50, spare_share=0.5))
    assert json.loads((tmp_path / "d" / "manifest.json").read_text())["rows"]["train"] == 50
