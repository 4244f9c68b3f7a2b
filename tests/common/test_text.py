"""Durations and tables as people read them."""

import pytest
from markdown_it import MarkdownIt

from common.text import duration, markdown_table


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00:00"), (59.6, "0:01:00"), (3661, "1:01:01"), (360000, "100:00:00"), (-5, "0:00:00")],
)
def test_durations_are_in_the_format_of_sbatch(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_table_is_read_back_as_it_was_given() -> None:
    lines = [("", "a", "b"), ("x|y", "`1|2`", ""), ("z", "\\frac{1}{2}", "$|x|$")]
    html = MarkdownIt("commonmark").enable("table").render(markdown_table(lines, "lrl"))
    cells = [line for line in html.splitlines() if line.startswith(("<td", "<th>", "<th "))]
    assert cells == [
        "<th></th>",
        '<th style="text-align:right">a</th>',
        "<th>b</th>",
        "<td>x|y</td>",
        '<td style="text-align:right"><code>1|2</code></td>',
        "<td></td>",
        "<td>z</td>",
        '<td style="text-align:right">\\frac{1}{2}</td>',
        "<td>$|x|$</td>",
    ]
