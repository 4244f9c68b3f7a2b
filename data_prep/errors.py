"""The failure that is nobody's bug: shown as one message, without a traceback, with exit code 1."""

from __future__ import annotations


class StageFailed(RuntimeError):
    """A stage could not finish for a reason outside its input; the message says what to do."""
