"""Tables as tables on a terminal, Markdown elsewhere; too wide a table is turned on its side."""

import io
import sys

import pytest

from common import terminal
from common.text import markdown_table

WIDE = markdown_table([["model", *(f"column {i}" for i in range(9))], ["a|b", *"123456789"]])


def test_elsewhere_markdown_stays_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.show(f"text\n\n{WIDE}")
    assert capsys.readouterr().out == f"text\n\n{WIDE}\n"


def test_a_wide_table_is_turned_where_that_helps() -> None:
    turned = terminal.fitted(f"before\n\n{WIDE}\n\nafter", 80)
    lines = turned.splitlines()
    assert lines[0] == "before" and lines[-1] == "after"
    assert lines[2] == "| model | a\\|b |" and lines[4] == "| column 0 | 1 |"
    assert terminal.fitted(WIDE, 120) == WIDE
    tall = markdown_table([["a", "b"], *[["x" * 40, "y" * 50]] * 3])
    assert terminal.fitted(tall, 80) == tall  # turned it would be wider


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_tables_without_pipes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    terminal.show(f"# Title\n\n{WIDE}\n\n[red]no markup[/red]")
    terminal.show_fields([("run", "a " * 60), ("log", "x")])
    text = out.getvalue()
    assert "|" not in text.replace("a|b", "") and "column 8" in text and "[red]no" in text
    assert max(map(len, text.splitlines())) <= 110  # colours included
