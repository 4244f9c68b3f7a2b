"""Prints Markdown: with drawn tables on a terminal, unchanged elsewhere."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from itertools import groupby

from common.text import markdown_table

_CELLS = re.compile(r"(?<!\\)\|")
_RULER = re.compile(r":?-+:?")


def show(markdown: str) -> None:
    """Prints Markdown on stdout. A table that is wider than the terminal is transposed if that
    makes it narrower.
    """
    if not sys.stdout.isatty():
        print(markdown, flush=True)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console(highlight=False)
    console.print(Markdown(fitted(markdown, console.width), hyperlinks=False))


def show_fields(fields: Sequence[tuple[str, str]]) -> None:
    """Prints names and texts in two columns; on a terminal, long texts wrap within their column."""
    if not sys.stdout.isatty():
        width = max(len(name) for name, _ in fields)
        print("\n".join(f"{name:<{width}}  {text}" for name, text in fields), flush=True)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0))
    for name, text in fields:
        grid.add_row(Text(name, style="bold"), Text(text, overflow="fold"))
    Console(highlight=False).print(grid)


def fitted(markdown: str, width: int) -> str:
    """Returns the Markdown; tables wider than ``width`` columns are transposed if that makes them
    narrower.
    """
    parts = []
    for is_table, lines in groupby(markdown.split("\n"), lambda line: line.startswith("|")):
        found = list(lines)
        parts += _turned(found, width) if is_table else found
    return "\n".join(parts)


def _turned(lines: Sequence[str], width: int) -> list[str]:
    rows = [[cell.strip() for cell in _CELLS.split(line)[1:-1]] for line in lines]
    rows = [row for row in rows if not all(map(_RULER.fullmatch, row))]
    columns = list(zip(*rows, strict=False))
    if _wide(rows) <= max(width, _wide(columns)):
        return list(lines)
    plain = [[cell.replace("\\|", "|") for cell in column] for column in columns]
    return markdown_table(plain, "l" + "r" * (len(rows) - 1)).split("\n")


def _wide(rows: Sequence[Sequence[str]]) -> int:
    """Returns the width that rich needs for a table, in columns: its cells, and two between
    them.
    """
    return sum(max(map(len, column)) + 2 for column in zip(*rows, strict=False))
