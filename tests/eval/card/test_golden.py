"""The model cards of two real runs, word by word, against the files in golden/."""

from pathlib import Path

import pytest

from tests.eval.card.golden_runs import CARDS, GOLDEN, normalised


@pytest.mark.slow
@pytest.mark.parametrize("name", CARDS)
def test_a_card_is_the_golden_one(name: str, tmp_path: Path) -> None:
    """If a change of the card is meant: make golden-cards"""
    text = CARDS[name](tmp_path)
    assert str(tmp_path) not in text
    assert normalised(text) == (GOLDEN / f"{name}.md").read_text()
