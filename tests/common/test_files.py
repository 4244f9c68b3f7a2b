"""Files are whole or absent, and one process writes at a time."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from common import files
from common.errors import UserError
from tests.conftest import ROOT


def test_a_folder_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "d"
    with pytest.raises(RuntimeError), files.whole_folder(target) as partial:
        (partial / "a").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with files.whole_folder(target) as partial:
        (partial / "a").write_text("whole")
        assert not target.exists()
    assert (target / "a").read_text() == "whole"
    with pytest.raises(FileExistsError), files.whole_folder(target):
        pass


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    code = (
        "import os; from pathlib import Path; from common.files import whole_folder\nwith "
        f"whole_folder(Path({str(tmp_path / 'd')!r})) as p: (p / 'a').write_text('x'); "
        "os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == -9
    assert not (tmp_path / "d").exists()
    with files.whole_folder(tmp_path / "d") as partial:
        assert list(partial.iterdir()) == []


def test_a_torn_last_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": 2')
    assert files.heal_jsonl(path) == 7
    assert list(files.read_jsonl(path)) == [{"a": 1}]
    assert files.heal_jsonl(path) == 0


def test_a_growing_file_is_followed_to_its_last_complete_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = files.follow_jsonl(path)
    assert next(lines) is None  # there is no file yet
    path.write_bytes(b'{"a": 1}\n{"a": 2}\n{"a"')
    assert [next(lines) for _ in range(4)] == [{"a": 1}, {"a": 2}, None, None]
    assert list(files.read_jsonl(path, growing=True)) == [{"a": 1}, {"a": 2}]
    with path.open("ab") as f:
        f.write(b": 3}\n")
    assert [next(lines), next(lines)] == [{"a": 3}, None]


@pytest.mark.parametrize("line", [b"{torn", b"[1]", b'{"a": "\xff"}'])
def test_a_broken_line_in_the_middle_is_named(line: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b'\n{"a": 2}\n')
    followed = files.follow_jsonl(path)
    assert next(followed) == {"a": 1}
    for rest in (followed, files.read_jsonl(path), files.read_jsonl(path, growing=True)):
        with pytest.raises(UserError, match=r"a\.jsonl, line 2: "):
            list(rest)


def test_a_second_writer_is_told_of_the_first_and_a_dead_one_is_succeeded(tmp_path: Path) -> None:
    lock = tmp_path / "run.lock"
    code = (
        "import time; from pathlib import Path; from common.files import write_lock\n"
        f"with write_lock(Path({str(lock)!r})): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with (
        pytest.raises(UserError, match=rf"process {holder.pid} on host {os.uname().nodename}"),
        files.write_lock(lock),
    ):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with files.write_lock(lock):
        pass
    assert not lock.exists()


@pytest.fixture
def blocked(tmp_path: Path) -> Path:
    """A folder that cannot be made, because a file stands where its parent is needed."""
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "folder" / "deep"


def test_a_file_where_a_folder_is_needed_is_an_error_of_one_line(blocked: Path) -> None:
    said = rf"{blocked.parents[1]}.*: Not a directory: a file stands where a folder is needed: move"
    with pytest.raises(UserError, match=said), files.write_lock(blocked / "lock"):
        pass
    with pytest.raises(UserError, match=said), files.whole_folder(blocked):
        pass
    with pytest.raises(UserError, match=said), files.write_lock(blocked.parents[1] / "lock"):
        pass


def test_a_full_or_read_only_disk_is_an_error_of_one_line(
    small_disk: Callable[[int], Path],
) -> None:
    disk = small_disk(1 << 20)
    with (
        pytest.raises(UserError, match=rf"^{disk} .*: No space left on device: free some space"),
        files.whole_folder(disk / "new") as partial,
    ):
        (partial / "a").write_bytes(bytes(2 << 20))
    assert list(disk.iterdir()) == []
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    said = rf"^{disk}/new.*: Read-only file system: it cannot be written: name another"
    with pytest.raises(UserError, match=said), files.whole_folder(disk / "new" / "deep"):
        pass
    with pytest.raises(UserError, match=said), files.write_lock(disk / "new" / "deep" / "lock"):
        pass


def test_only_errors_about_the_path_and_with_a_remedy_are_the_users(tmp_path: Path) -> None:
    denied = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "a"))
    with (
        pytest.raises(
            UserError, match=rf"^{tmp_path / 'a'}: Permission denied: change its permissions"
        ),
        files.file_errors(tmp_path),
    ):
        raise denied
    for error, path in (
        (denied, tmp_path / "b"),
        (OSError(errno.EIO, "Input/output error", str(tmp_path / "a")), tmp_path),
        (FileNotFoundError(errno.ENOENT, "No such file", str(tmp_path / "a")), tmp_path),
    ):
        with pytest.raises(OSError) as raised, files.file_errors(path):
            raise error
        assert raised.value is error
