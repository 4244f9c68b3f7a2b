"""A record that yields no row."""

from __future__ import annotations


class Dropped(Exception):
    """``args[0]`` is the reason under which the funnel counts the record."""
