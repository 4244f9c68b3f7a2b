"""Errors that a person is meant to read."""

from __future__ import annotations


def first_line(error: Exception) -> str:
    """An error's message cut to one line; its type where it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)


class StageFailed(RuntimeError):
    """A stage could not finish for a reason outside its input; the message says what to do.

    Shown without a traceback, with exit code 1.
    """


class UserError(Exception):
    """A mistake that a person can fix: its message says what is wrong, where, and which command fixes it.

    Shown without a traceback, with exit code 2. Every other exception is a bug and keeps its traceback.
    """
