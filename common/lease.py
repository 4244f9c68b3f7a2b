"""Decides whether the holder of a lock is alive: by its process if that runs on this host,
otherwise by its heartbeat, the lock file's modification time.

That time comes from the clock of the file server or of another host, so it is never compared with
this host's clock. It is watched for a change, or compared with the time of a file written now.
"""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

LEASE_SECONDS = 60
"""Seconds without a heartbeat after which a writer loses its lock."""
HEARTBEATS = 3
"""Heartbeats within that time."""
POLL_SECONDS = 0.5
HOST_NAMESPACE = 0xEFFFFFFC
"""Inode of a host's own PID namespace; a container may have another one."""

State = tuple[int, int, int]
"""Inode, modification and change time of a lock file; a heartbeat changes it."""
_seen: dict[Path, tuple[State, float]] = {}
"""Each lock's last observed state, and the monotonic time since which it has not changed."""


def holder(lock: Path) -> dict[str, str]:
    """Returns what the holder wrote into its lock (``host``, ``pid`` and others); empty if there is
    no lock.
    """
    try:
        lines = lock.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    return dict(line.split("=", 1) for line in lines if "=" in line)


def is_elsewhere(lock: Path) -> bool:
    """Returns whether the holder may be a process of another host or container, which this process
    cannot check; True also if the lock does not name its holder.
    """
    return holder(lock).get("host") != _here()


def age(path: Path) -> float | None:
    """Returns the seconds since a file was written, by its file system's clock; None if there is no
    such file, or nothing can be written beside it.
    """
    try:
        with tempfile.TemporaryFile(dir=path.parent) as probe:
            now = os.fstat(probe.fileno()).st_mtime
        return now - path.stat().st_mtime
    except OSError:
        return None


def is_locked(lock: Path) -> bool:
    """Returns whether a process seems to hold ``lock``, without trying to take it: the holder has
    not died on this host, and its last heartbeat is less than LEASE_SECONDS old.

    If no file can be written next to the lock, waits for a heartbeat instead, up to half of
    LEASE_SECONDS.
    """
    state = _state(lock)
    if state is None or _has_died_here(lock):
        return False
    seconds = age(lock)
    if seconds is not None:
        return seconds < LEASE_SECONDS
    end = time.monotonic() + 1.5 * LEASE_SECONDS / HEARTBEATS
    while time.monotonic() < end:
        time.sleep(min(POLL_SECONDS, LEASE_SECONDS / 10))
        if (now := _state(lock)) != state:
            return now is not None
    return False


def break_abandoned(lock: Path) -> bool:
    """Removes a lock whose holder has died on this host, or is on another host and has given no
    heartbeat for LEASE_SECONDS since this process first called this function. Returns whether the
    lock is gone.

    The lock library replaces such a lock by an exchange of names, which NFS and Lustre refuse.
    """
    state, now = _state(lock), time.monotonic()
    if state is None:
        _seen.pop(lock, None)
        return True
    before, since = _seen.get(lock, (None, now))
    if before != state:
        since = now
        _seen[lock] = state, now
    silent = is_elsewhere(lock) and now - since >= LEASE_SECONDS
    if not silent and not _has_died_here(lock):
        return False
    # Of several who have judged the same lock, one removes it, and none its successor's.
    mutex = lock.with_name(f".{lock.name}.{state[0]}-{state[1]}.breaking")
    try:
        mutex.mkdir()
    except OSError:
        return False
    try:
        if _state(lock) != state:
            return False
        lock.unlink()
        return True
    except OSError:
        return False
    finally:
        with suppress(OSError):
            mutex.rmdir()


def _state(lock: Path) -> State | None:
    """Returns the lock's state; None if there is no lock. Opens the file, because NFS asks the
    server only then; a lock that may not be read is only examined with stat.
    """
    with suppress(OSError), lock.open("rb") as f:
        return _times(os.fstat(f.fileno()))
    with suppress(FileNotFoundError):
        return _times(lock.stat())
    return None


def _times(found: os.stat_result) -> State:
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns


def _here() -> str:
    """Returns this host as the lock library writes it, with the container if it has processes of
    its own. A name that it writes in another way counts as another host, which is safe.
    """
    namespace = os.stat("/proc/self/ns/pid").st_ino
    return os.uname().nodename + ("" if namespace == HOST_NAMESPACE else f"?pidns-{namespace:x}")


def _has_died_here(lock: Path) -> bool:
    """Returns whether the holder was a process of this host that has ended, even if another process
    has its number now.
    """
    found = holder(lock)
    if found.get("host") != _here():
        return False
    try:
        os.kill(int(found.get("pid", "")), 0)
    except (ProcessLookupError, ValueError):
        return True
    except PermissionError:  # another user's
        pass
    try:
        fields = Path(f"/proc/{found.get('pid')}/stat").read_text(errors="replace")
    except OSError:  # hidden from other users, or it has just ended
        return False
    # The start time: field 22, of which the library writes the low 64 bits behind a boot's id.
    start, running = found.get("start", ""), fields.rpartition(")")[2].split()[19]
    return start.isdecimal() and int(start) % 2**64 != int(running)
