"""A build that is killed, or fails, leaves no dataset, no workers, and what was there before as it
was.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from common.errors import UserError
from common.files import sha256_file, verify
from data_prep.build import Workers, build
from data_prep.settings import Settings
from data_prep.source.source import Source
from tests.conftest import ROOT
from tests.data_prep.openr1 import clean
from tests.data_prep.planted import SETTINGS, rows, write


def test_a_killed_build_leaves_no_dataset_and_the_next_one_makes_it(
    built: Path, records: list[dict[str, Any]], tmp_path: Path
) -> None:
    source = write(tmp_path / "source", records, 3)
    code = (
        "import os, sys; from pathlib import Path; from dataclasses import replace\nfrom "
        "data_prep.output import report; from data_prep.source.source import Source\nfrom "
        "data_prep.build import build, Workers\nfrom tests.data_prep.planted import SETTINGS\n"
        "report.write = lambda *a: os.kill(os.getpid(), 9)\n"
        f"build(Path({str(tmp_path / 'data')!r}), replace(SETTINGS, source=Source({source!r})), "
        "Workers(processes=1))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL).returncode
        == -9
    )
    assert not (tmp_path / "data").exists() and (tmp_path / ".data.partial").exists()
    assert build(tmp_path / "data", replace(SETTINGS, source=Source(source)), Workers(processes=1))
    assert sha256_file(tmp_path / "data" / "rows.parquet") == sha256_file(built / "rows.parquet")
    assert not (tmp_path / ".data.partial").exists()


def mapping(
    tmp_path: Path, count: int
) -> tuple[subprocess.Popen[str], list[psutil.Process], Settings]:
    """A build with two workers that has begun to map ``count`` records, its child processes, and
    its settings.
    """
    source = write(tmp_path / "source", [clean(i, words=150) for i in range(count)], 4)
    code = (
        "from pathlib import Path; from dataclasses import replace\nfrom data_prep.source.source "
        "import Source; from data_prep.build import build, Workers\nfrom tests.data_prep.planted "
        f"import SETTINGS\nif __name__ == '__main__':\n  build(Path({str(tmp_path / 'data')!r}), "
        f"replace(SETTINGS, source=Source({source!r})), Workers(processes=2))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    parts = tmp_path / ".data.partial" / "parts"
    while not list(parts.glob("*.arrow")):
        assert process.poll() is None
        time.sleep(0.01)
    return process, psutil.Process(process.pid).children(), replace(SETTINGS, source=Source(source))


def test_a_build_killed_while_it_maps_leaves_no_worker_and_the_next_one_makes_it(
    tmp_path: Path,
) -> None:
    process, children, settings = mapping(tmp_path, 1_200)
    assert len(children) >= 2
    process.kill()
    process.communicate()
    assert psutil.wait_procs(children, timeout=60)[1] == []
    assert not (tmp_path / "data").exists() and not list(tmp_path.rglob("manifest.json"))
    assert build(tmp_path / "data", settings, Workers(processes=2))
    verify(tmp_path / "data")
    assert len(rows(tmp_path / "data")) == 1_200
    assert not (tmp_path / ".data.partial").exists()


def test_a_killed_worker_fails_the_build_in_words(tmp_path: Path) -> None:
    process, children, _ = mapping(tmp_path, 1_200)
    next(child for child in children if "spawn_main" in " ".join(child.cmdline())).kill()
    assert "a worker process was killed" in process.communicate()[1].splitlines()[-1]
    assert process.returncode == 1
    assert psutil.wait_procs(children, timeout=60)[1] == []
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def contents(folder: Path) -> dict[Path, bytes]:
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_full_disk_leaves_the_old_dataset_as_it_was_and_no_new_one(
    records: list[dict[str, Any]], tmp_path: Path, small_disk: Callable[[int], Path]
) -> None:
    source = write(tmp_path / "source", records, 3)
    settings = replace(SETTINGS, source=Source(source), test_rows=5)
    build(tmp_path / "old", settings, Workers(processes=1))
    content = contents(tmp_path / "old")
    # Room for the old dataset and a third of a new one.
    disk = small_disk(sum(4096 + len(data) for data in content.values()) * 4 // 3)
    shutil.copytree(tmp_path / "old", disk / "old")
    with pytest.raises(UserError, match=rf"^{disk} .*: No space left on device: free some space"):
        build(disk / "new", replace(settings, test_rows=6), Workers(processes=1))
    assert [p.name for p in disk.iterdir()] == ["old"]
    assert {
        p.relative_to(disk / "old"): p.read_bytes()
        for p in (disk / "old").rglob("*")
        if p.is_file()
    } == content
    assert not build(disk / "old", settings), "it is still the dataset of these settings"
    assert len(rows(disk / "old")) == len(rows(tmp_path / "old"))


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_damaged_file_fails_the_build_by_name_on_either_engine(
    engine: str, built: Path, records: list[dict[str, Any]], tmp_path: Path
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(records), path, row_group_size=100)
    data = bytearray(path.read_bytes())
    data[100:10_000] = bytes(9_900)
    path.write_bytes(data)
    # A tokenizer that is there already, so that the workers are the first to read the rows.
    settings = replace(
        SETTINGS, source=Source(str(path)), tokenizer="model", model=str(built / "tokenizer")
    )
    with pytest.raises(UserError, match=r"rows\.parquet, rows 1 to 100: not readable parquet"):
        build(tmp_path / "data", settings, Workers(engine, processes=2))
    assert [p.name for p in tmp_path.iterdir()] == ["rows.parquet"]


def test_a_label_fault_fails_the_build(records: list[dict[str, Any]], tmp_path: Path) -> None:
    """A template that loses the think block, as Qwen3's own does on single messages."""
    source = write(tmp_path / "source", records[:30], 1)
    code = (
        "from pathlib import Path; from dataclasses import replace\nfrom data_prep.tokenizer "
        "import chat; from data_prep.source.source import Source\nfrom data_prep.build import "
        "build, Workers\nfrom tests.data_prep.planted import SETTINGS\nencode = chat.encode\ncut = "
        "lambda row: replace(row, solution=row.solution.split('</think>')[-1])\nchat.encode = "
        "lambda t, rows, prompt: encode(t, [cut(row) for row in rows], prompt)\n"
        f"build(Path({str(tmp_path / 'data')!r}), replace(SETTINGS, source=Source({source!r})), "
        "Workers(processes=1))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "label audit, row" in done.stderr and "loss does not start at <think>" in done.stderr
    assert not (tmp_path / "data").exists()
