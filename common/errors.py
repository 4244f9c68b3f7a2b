"""What errors say."""

from __future__ import annotations


def first_line(error: Exception) -> str:
    """An error's message cut to one line; its type where it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)


class StageFailed(RuntimeError):
    """A stage could not finish for a reason outside its input; the message says what to do.

    Shown without a traceback, with exit code 1.
    """
