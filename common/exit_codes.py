"""Exit codes of the ``warmstart`` command, of the ranks and of the job scripts."""

DONE = 0
FAILED = 1
USAGE = 2
"""The command line or the configuration is wrong."""
PREFLIGHT = 3
"""``warmstart doctor`` found a fatal problem."""
STOPPED = 75
"""Stopped on purpose; the same command resumes (EX_TEMPFAIL of sysexits.h)."""
