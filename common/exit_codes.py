"""Exit codes of the ``warmstart`` command, of the ranks and of the job scripts."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable

from common.errors import StageFailed, UserError

DONE = 0
FAILED = 1
USAGE = 2
"""The command line or the configuration is wrong."""
PREFLIGHT = 3
"""``warmstart doctor`` found a fatal problem."""
STOPPED = 75
"""Stopped on purpose; the same command resumes (EX_TEMPFAIL of sysexits.h)."""


def _nobody_reads() -> bool:
    """Returns whether stdout is a pipe whose reader, such as ``head``, has ended."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def reported(work: Callable[[], int]) -> int:
    """Returns the exit code of ``work``. A UserError or StageFailed becomes one line; any other
    error keeps its traceback.
    """
    try:
        code = work()
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        if not _nobody_reads():
            raise
        # What is still in the buffer is written when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except UserError as e:
        print(f"warmstart: {e}", file=sys.stderr)
        return USAGE
    except StageFailed as e:
        print(f"warmstart: {e}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("warmstart: interrupted; run the same command again to continue", file=sys.stderr)
        return STOPPED
