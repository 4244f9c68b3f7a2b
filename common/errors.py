"""Exceptions and error formatting."""

from __future__ import annotations


def first_line(error: Exception) -> str:
    """Returns the first line of an error's message, or the name of its type if the message is
    empty.
    """
    return next(iter(str(error).splitlines()), type(error).__name__)


class StageFailed(RuntimeError):
    """A stage could not finish for a reason outside its input. The message says what to do.

    Shown without a traceback, with exit code 1.
    """


class UserError(Exception):
    """A mistake that the user can fix. The message says what is wrong, where, and which command
    fixes it.

    Shown without a traceback, with exit code 2. Every other exception is a bug and keeps its
    traceback.
    """
