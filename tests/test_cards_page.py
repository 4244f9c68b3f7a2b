"""docs/published_cards.md: each line has a state, a way, and a test that exists."""

import ast
import re

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "published_cards.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("| line of the card")
]


@pytest.mark.parametrize("row", ROWS, ids=[row[0][:40] for row in ROWS])
def test_each_line_of_a_card_has_a_state_and_a_test(row: list[str]) -> None:
    line, state, how, test = row
    assert line and how
    assert state in ("covered", "unknown")
    path, _, name = test.partition("::")
    source = (ROOT / path).read_text(encoding="utf-8")
    functions = [
        node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)
    ]
    assert name in functions if name else any(f.startswith("test_") for f in functions)


def test_recipes_protocols_and_pages_that_it_names_exist() -> None:
    for path in re.findall(r"`(recipes/[\w/]+\.yaml)`|\]\(([\w./-]+\.md)\)", PAGE):
        assert (ROOT / path[0] if path[0] else ROOT / "docs" / path[1]).exists()
    for name in re.findall(r"eval\.protocol=(\w+)", PAGE):
        assert (ROOT / "recipes" / "protocols" / f"{name}.yaml").exists()


def test_both_cards_are_there() -> None:
    assert len(ROWS) > 45
