"""Durations, numbers, Markdown tables and code blocks, as people and files read them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path


def duration(seconds: float) -> str:
    """Returns a duration as H:MM:SS, the format of sbatch's --time; a negative one is 0:00:00."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def plain_number(value: int | float) -> str:
    """Returns a finite number without an exponent; a whole one without decimals: 108.0 is "108"."""
    return str(int(value)) if value == int(value) else f"{Decimal(repr(value)):f}"


def percent(share: float, digits: int = 2) -> str:
    """Returns a share, in 0..1, in percent: a measured one has two decimals, a chosen one, such as
    the level of an interval, none.
    """
    return f"{in_percent(share, digits)} %"


def in_percent(share: float, digits: int = 2) -> str:
    """Returns ``percent`` without its sign."""
    # A mean on the edge, such as 0.31125, is rounded alike in whatever order it was summed up.
    return f"{round(share * 100, 9) + 1e-9:.{digits}f}"


def nearest(word: str, known: Iterable[str]) -> str:
    """Returns ``; did you mean NAME?`` for the known name that is most like ``word``, whatever its
    case; an empty text if none is.
    """
    names = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.5)
    return f"; did you mean {names[close[0]]}?" if close else ""


def from_here(path: str) -> str:
    """Returns where a relative path begins, for a message; an empty text for an absolute path."""
    return "" if Path(path).is_absolute() else f" (relative paths begin in {Path.cwd()})"


def markdown_table(lines: Iterable[Sequence[str]], align: str | None = None) -> str:
    """Returns a Markdown table; the first line holds the titles.

    ``align`` has ``l`` or ``r`` for each column; by default the first column is left-aligned and
    the others are right-aligned. A ``|`` in a cell is escaped.
    """
    titles, *rows = lines
    align = align or "l" + "r" * (len(titles) - 1)
    ruler = "|" + "|".join({"l": "---", "r": "---:"}[side] for side in align) + "|"
    return "\n".join([_line(titles), ruler, *map(_line, rows)])


def printable(text: str) -> str:
    """Returns a text that a terminal shows and does not obey: without control characters, which are
    spelt out as in Python (``\\x1b``), but with its line breaks and tabs.
    """
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def fenced(text: str, language: str = "") -> str:
    """Returns a Markdown code block whose fence is longer than any run of backticks in the text."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def shortened(text: str, longest: int) -> str:
    """Returns a text of more than ``longest`` characters without its middle."""
    if len(text) <= longest:
        return text
    return f"{text[: longest // 2]}\n[...]\n{text[-longest // 2 :]}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
