"""The generated sums."""

import re

import pytest

from common.errors import UserError
from data_prep.source import arithmetic


def test_every_sum_of_the_generator_is_there_once_in_one_order() -> None:
    sums = [record["problem"] for record in arithmetic.records(problems=4095, digits=2, seed=3)]
    pairs = [tuple(map(int, re.findall("[0-9]+", problem))) for problem in sums]
    assert {tuple(sorted(pair)) for pair in pairs} == {
        (a, b) for b in range(10, 100) for a in range(10, b + 1)
    }
    assert 0.4 < sum(a < b for a, b in pairs) / len(pairs) < 0.6
    with pytest.raises(UserError, match="only 4095 sums of 2 digits"):
        next(arithmetic.records(problems=4096, digits=2, seed=3))
