"""A lock is judged by its holder's process and heartbeat, whatever the clocks of hosts and file
servers say, and on file systems without an exchange of names.
"""

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock
import pytest

from common import lease
from common.files import Locked, write_lock

LEASE = 0.9
DAY = 86400


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "LEASE_SECONDS", LEASE)
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.05)


@pytest.fixture(params=[True, False], ids=["exchange", "no exchange"])
def exchange(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that can exchange two names, as local ones, and one that cannot, as NFS."""
    if not request.param:
        monkeypatch.setattr(filelock._soft, "exchange_names", lambda *_: False)


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "run.lock"


def held(lock: Path, host: str = "elsewhere", pid: int = 7, start: int | None = None) -> None:
    """Writes what the library writes for a holder."""
    mark = f"filelock/2\npid={pid}\nhost={host}\nmode=lease\ntoken={'0' * 32}\nduration={LEASE!r}\n"
    lock.write_text(mark + (f"start={start}\n" if start is not None else ""))


def at(lock: Path, skew: float, beat: int = 0) -> None:
    """Sets the time of a heartbeat as a server with another clock does."""
    second = time.time() + skew + beat
    os.utime(lock, (second, second))


@contextmanager
def beating(lock: Path, skew: float) -> Iterator[None]:
    """A holder of another host that lives."""
    over = threading.Event()

    def beat() -> None:
        count = 0
        while not over.wait(LEASE / lease.HEARTBEATS):
            at(lock, skew, count := count + 1)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("skew", [-DAY, 0, DAY])
@pytest.mark.usefixtures("exchange")
def test_a_lock_of_another_host_lasts_as_long_as_its_heart_beats(lock: Path, skew: float) -> None:
    held(lock)
    at(lock, skew)
    with (
        beating(lock, skew),
        pytest.raises(Locked, match="process 7 on host elsewhere"),
        write_lock(lock),
    ):
        pass
    begin = time.monotonic()
    with write_lock(lock):
        assert time.monotonic() - begin >= LEASE / 2
        assert f"pid={os.getpid()}" in lock.read_text()
    assert not lock.exists() and list(lock.parent.iterdir()) == []


@pytest.mark.usefixtures("exchange")
def test_a_lock_that_says_nothing_is_taken_in_the_end(lock: Path) -> None:
    """Its process died between making and writing it."""
    lock.touch()
    begin = time.monotonic()
    with write_lock(lock):
        assert time.monotonic() - begin >= LEASE / 2


@pytest.mark.usefixtures("exchange")
def test_who_does_not_wait_counts_from_its_first_look(lock: Path) -> None:
    held(lock)
    at(lock, -DAY)
    for _ in range(2):
        begin = time.monotonic()
        with pytest.raises(Locked), write_lock(lock, wait=False):
            pass
        assert time.monotonic() - begin < LEASE / 3
    time.sleep(LEASE)
    with write_lock(lock, wait=False):
        pass


def ended() -> int:
    """The number of a process that is no more."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.mark.parametrize(("pid", "start"), [(ended, None), (os.getpid, 1)])
@pytest.mark.usefixtures("exchange")
def test_a_lock_of_a_process_of_this_host_that_has_died_is_taken_at_once(
    lock: Path, pid: Callable[[], int], start: int | None
) -> None:
    """Also where another process has its number."""
    held(lock, lease._here(), pid(), start)
    begin = time.monotonic()
    assert not lease.is_locked(lock)
    with write_lock(lock):
        assert time.monotonic() - begin < LEASE / 3


def test_a_living_process_of_this_host_keeps_its_lock(lock: Path) -> None:
    with write_lock(lock):
        start = lease.holder(lock)["start"]
    held(lock, lease._here(), os.getpid(), int(start))
    assert not lease.break_abandoned(lock) and lease.is_locked(lock)
    time.sleep(LEASE)
    assert not lease.break_abandoned(lock), "stopped, not dead"
    held(lock, f"{lease._here()}?pidns-1", ended())  # a container's, whose numbers are its own
    assert not lease.break_abandoned(lock) and lease.is_locked(lock)


def test_the_lock_of_a_successor_is_not_broken(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held(lock, lease._here(), ended())
    make = Path.mkdir

    def taken(path: Path, *arguments: int) -> None:
        """Another process takes the lock just before this one would remove it."""
        lock.unlink()
        held(lock)
        make(path, *arguments)

    with monkeypatch.context() as m:
        m.setattr(Path, "mkdir", taken)
        assert not lease.break_abandoned(lock)
    assert lease.holder(lock)["host"] == "elsewhere"
    held(lock, lease._here(), ended())
    with monkeypatch.context() as m:
        m.setattr(Path, "mkdir", lambda path: make(path) or make(path))  # another one is at it
        assert not lease.break_abandoned(lock) and lock.exists()


def test_whether_a_lock_is_held_does_not_hang_on_this_hosts_clock(
    lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not lease.is_locked(lock)
    held(lock)
    for skew in (-DAY, DAY):
        now = time.time() + skew
        with monkeypatch.context() as m:
            m.setattr(time, "time", lambda now=now: now)
            assert lease.is_locked(lock)
            assert abs(lease.age(lock) or 0) < LEASE
    at(lock, -2 * LEASE)
    assert not lease.is_locked(lock)


def test_where_nothing_can_be_written_a_heartbeat_is_waited_for(
    lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(dir: Path) -> None:
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    held(lock)
    at(lock, -DAY)
    with beating(lock, -DAY):
        assert lease.is_locked(lock)
    assert not lease.is_locked(lock) and lease.age(lock) is None
