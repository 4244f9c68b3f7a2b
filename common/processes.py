"""Ties a process to its parent, and limits its memory (Linux)."""

from __future__ import annotations

import ctypes
import resource
import signal

# Loaded at import: between fork and exec only calls that need no memory are safe.
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Makes Linux kill this process when its parent ends. Meant for ``preexec_fn``."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def limit_memory(limit: int) -> None:
    """Makes allocations fail beyond ``limit`` bytes of address space, and turns off core dumps."""
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
