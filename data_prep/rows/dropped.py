"""A record that yields no row, with the excerpt that the report shows: the part that failed."""

from __future__ import annotations

EXCERPT = 300
"""Maximum length of an excerpt, in characters."""


class Dropped(Exception):
    """``args[0]`` is the reason under which the funnel counts the record; ``shown`` is an excerpt
    of what failed, or None if that is the problem's text.
    """

    def __init__(self, reason: str, shown: str | None = None) -> None:
        super().__init__(reason)
        self.shown = shown


def head(text: str, most: int = EXCERPT) -> str:
    """Returns the beginning of a text, at most ``most`` characters."""
    return text if len(text) <= most else f"{text[: most - 2]} …"


def tail(text: str, most: int = EXCERPT) -> str:
    """Returns the end of a text, at most ``most`` characters."""
    return text if len(text) <= most else f"… {text[2 - most :]}"


def around(text: str, start: int) -> str:
    """Returns the text around position ``start``, at most EXCERPT characters."""
    first = start - EXCERPT // 3
    return head(text) if first <= 0 else f"… {head(text[first:], EXCERPT - 2)}"
