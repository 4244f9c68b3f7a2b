"""Durations and Markdown tables, as reports, pages and logs write them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def duration(seconds: float) -> str:
    """Returns a duration as H:MM:SS, the format of sbatch's --time; a negative one is 0:00:00."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def markdown_table(lines: Iterable[Sequence[str]], align: str | None = None) -> str:
    """Returns a Markdown table; the first line holds the titles.

    ``align`` has ``l`` or ``r`` for each column; by default the first column is left-aligned and
    the others are right-aligned. A ``|`` in a cell is escaped.
    """
    titles, *rows = lines
    align = align or "l" + "r" * (len(titles) - 1)
    ruler = "|" + "|".join({"l": "---", "r": "---:"}[side] for side in align) + "|"
    return "\n".join([_line(titles), ruler, *map(_line, rows)])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
