"""Atomic writes (a file or folder is either complete or absent), hashes, JSONL and locks."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from common import lease
from common.errors import UserError

MANIFEST = "manifest.json"
FREE_SPACE = "free some space there, then run the command again"
CHANGE_PERMISSIONS = "change its permissions, or name another path"
FIXES = {
    errno.ENOSPC: FREE_SPACE,
    errno.EDQUOT: FREE_SPACE,
    errno.EACCES: CHANGE_PERMISSIONS,
    errno.EROFS: "it cannot be written: name another path",
    errno.ENOTDIR: "a file stands where a folder is needed: move it away, or name another folder",
    errno.EISDIR: "a folder stands where a file is needed: move it away, or name another file",
}
"""Errors of the file system that a person can fix, and how."""


class Locked(UserError):
    """Another process holds a lock."""


@contextlib.contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Raises an OSError of the block as a UserError if a person can fix it and it is about
    ``path``, a file below it, or a folder above it. An error that names no file (a full disk)
    counts as one about ``path``.
    """
    try:
        yield
    except OSError as e:
        place = path if e.filename is None else Path(os.fsdecode(e.filename))
        whole, named = path.absolute(), place.absolute()
        related = named.is_relative_to(whole) or whole.is_relative_to(named)
        if e.errno not in FIXES or not related:
            raise
        where = f"{place} (or a temporary folder)" if e.filename is None else str(place)
        raise UserError(f"{where}: {os.strerror(e.errno)}: {FIXES[e.errno]}") from e


def make_folder(path: Path) -> None:
    """Creates a folder and its parents where they are missing. Raises UserError when a file stands
    in the way or they cannot be written.
    """
    with file_errors(path):
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
        path.mkdir(parents=True, exist_ok=True)


def sha256_file(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Returns the SHA-256 of a value's canonical JSON (sorted keys, no spaces), in hex."""
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()


def write_text(path: Path, text: str) -> None:
    """Replaces ``path`` atomically: readers see either the old text or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with partial.open("w", encoding="utf-8") as f:
        f.write(text)
        f.flush()
        os.fsync(f.fileno())
    partial.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Writes ``value`` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Returns the content of a JSON file. Raises UserError naming the file when it is not valid
    JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as e:  # ValueError: also integers with too many digits
        raise UserError(f"{path}: not valid JSON ({e})") from e


def read_object(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file. Raises UserError naming the file when it holds none."""
    if not isinstance(value := read_json(path), dict):
        raise UserError(f"{path}: not a JSON object")
    return value


def read_jsonl(path: Path, growing: bool = False) -> Iterator[dict[str, Any]]:
    """Yields the objects of a JSONL file. If it is ``growing``, an incomplete last line is skipped.

    Raises UserError naming file and line when a line is not a JSON object.
    """
    with path.open("rb") as f:
        for number, line in enumerate(f, 1):
            if line.strip() and (line.endswith(b"\n") or not growing):
                yield _object(path, number, line)


def intact_lines(path: Path) -> tuple[dict[int, dict[str, Any]], dict[int, str]]:
    """Returns the objects of a growing JSONL file, and the faults of its other lines, both by the
    line's number. An incomplete last line is neither.
    """
    objects, faults = {}, {}
    with path.open("rb") as f:
        for number, line in enumerate(f, 1):
            if not line.strip() or not line.endswith(b"\n"):
                continue
            try:
                objects[number] = _object(path, number, line)
            except UserError as e:
                faults[number] = str(e).partition(": ")[2]
    return objects, faults


def follow_jsonl(path: Path) -> Iterator[dict[str, Any] | None]:
    """Yields the objects of a growing JSONL file as they are written, and None whenever there is no
    new one; the file need not exist yet.

    Raises UserError naming file and line when a complete line is not a JSON object.
    """
    position = number = 0
    while True:
        if path.exists():
            with path.open("rb") as f:
                f.seek(position)
                for line in f:
                    if not line.endswith(b"\n"):
                        break
                    position, number = position + len(line), number + 1
                    if line.strip():
                        yield _object(path, number, line)
        yield None


def _object(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as e:
        raise UserError(f"{path}, line {number}: not valid JSON ({e})") from e
    if not isinstance(value, dict):
        raise UserError(f"{path}, line {number}: expected an object, found {type(value).__name__}")
    return value


def write_jsonl(path: Path, values: Iterable[dict[str, Any]]) -> None:
    """Writes one JSON object per line, atomically."""
    write_text(path, "".join(json.dumps(v, ensure_ascii=False) + "\n" for v in values))


def heal_jsonl(path: Path) -> int:
    """Removes an incomplete last line (without a newline) from an append-only file. Returns the
    bytes removed.
    """
    if not path.exists():
        return 0
    data = path.read_bytes()
    torn = len(data) - (data.rfind(b"\n") + 1)
    if torn:
        with path.open("r+b") as f:
            f.truncate(len(data) - torn)
    return torn


def damaged(folder: Path) -> list[str]:
    """Returns the files in the folder's manifest that are missing or have another hash. Hashes in
    threads.

    Raises UserError when the manifest is not valid JSON or lists no files.
    """
    manifest = read_json(folder / MANIFEST)
    wanted = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(wanted, dict):
        raise UserError(f"{folder / MANIFEST} lists no files")

    def is_damaged(name: str) -> bool:
        path = folder / name
        return not path.is_file() or sha256_file(path) != wanted[name]

    with ThreadPoolExecutor() as pool:
        return [name for name, bad in zip(wanted, pool.map(is_damaged, wanted), strict=True) if bad]


def verify(folder: Path) -> None:
    """Raises UserError when a file in the folder's manifest is missing or has another hash."""
    if bad := damaged(folder):
        raise UserError(
            f"{folder / bad[0]} is missing or damaged: delete {folder} and run the command again"
        )


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder that is renamed to ``path`` when the block ends without an exception.

    On an exception the partial folder is removed; one left by a killed process is removed by the
    next call. Raises FileExistsError when ``path`` exists, UserError as ``file_errors`` does.
    """
    if path.exists():
        raise FileExistsError(path)
    partial = path.with_name(f".{path.name}.partial")
    with file_errors(path.parent):
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
        try:
            yield partial
            _fsync_tree(partial)
            partial.rename(path)
            fsync(path.parent)
        finally:
            if partial.exists():
                shutil.rmtree(partial)


def fsync(path: Path) -> None:
    """Flushes a file, or a folder's list of entries, to disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _fsync_tree(root: Path) -> None:
    for path in [root, *root.rglob("*")]:
        fsync(path)


@contextlib.contextmanager
def write_lock(path: Path, wait: bool = True) -> Iterator[None]:
    """Holds the lock ``path`` as the only writer of what it guards: a lease with a heartbeat, safe
    over NFS, and whatever the hosts' clocks say.

    The lock of a process that died on this host is taken over at once. If the holder is on another
    host, waits for its lease to expire, unless ``wait`` is false: then it counts from the first
    call. Raises Locked naming the holder when it is alive, UserError when the lock's folder cannot
    be written.
    """
    from filelock import SoftFileLease, Timeout

    lock = SoftFileLease(path, lease_duration=lease.LEASE_SECONDS)
    make_folder(path.parent)
    with file_errors(path.parent):
        patience = lease.LEASE_SECONDS * 1.5 if wait and lease.is_elsewhere(path) else 0
        end = time.monotonic() + patience
        while True:
            try:
                lock.acquire(timeout=0)
                break
            except Timeout as e:
                if lease.break_abandoned(path):
                    continue
                if time.monotonic() >= end:
                    raise _locked(path) from e
            time.sleep(min(lease.POLL_SECONDS, lease.LEASE_SECONDS / 10))
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """Holds the lock ``path`` as ``write_lock`` does; while a living process holds it, waits and
    says so once.
    """
    with contextlib.ExitStack() as held:
        told = False
        while True:
            try:
                held.enter_context(write_lock(path))
                break
            except Locked:
                if not told:
                    print(f"warmstart: waiting for {_owner(path)}", flush=True)
                told = True
                time.sleep(lease.POLL_SECONDS)
        yield


def _owner(path: Path) -> str:
    owner = lease.holder(path)
    return f"process {owner.get('pid', '?')} on host {owner.get('host', '?')}"


def _locked(path: Path) -> Locked:
    return Locked(
        f"{path.parent} is being written by {_owner(path)}: wait for it, or stop it, then run "
        "this command again"
    )
