"""Exceptions and error formatting."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence


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


class Mistakes(UserError):
    """Several mistakes that are reported together."""

    def __init__(self, faults: Sequence[str]) -> None:
        lines = [f"{len(faults)} things have to be fixed:", *faults]
        super().__init__("\n".join(lines).replace("\n", "\n  "))
        self.faults = list(faults)


def refuse(faults: Sequence[str]) -> None:
    """Raises a UserError that lists all faults, one per line; does nothing if there is none."""
    if len(faults) > 1:
        raise Mistakes(faults)
    if faults:
        raise UserError(faults[0])


def faults_of(checks: Iterable[Callable[[], object]]) -> list[str]:
    """Runs every check; returns the messages of those that raise a UserError, each once."""
    faults: list[str] = []
    for check in checks:
        try:
            check()
        except UserError as e:
            faults += e.faults if isinstance(e, Mistakes) else [str(e)]
    return list(dict.fromkeys(faults))
