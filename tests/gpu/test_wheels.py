"""The wheels that a bare machine needs: few bytes, whole, and enough for the check."""

import base64
import csv
import hashlib
import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.gpu import rows
from tests.gpu.rows import FAILED
from tests.test_setup import find_uv

BARE = [
    "torch==2.11.0",
    "transformers==5.17",
    "numpy",
    "pandas",
    "pyarrow",
    "accelerate",
    "peft",
    "safetensors",
]
BARE += ["psutil", "tqdm", "pyyaml", "jinja2", "regex"]
"""The machine has these packages and their needs."""
LIMIT = 40 * 2**20
MODULES = tuple(
    f"tests.gpu.{path.stem}"
    for path in sorted(Path(__file__).parent.glob("*.py"))
    if not path.stem.startswith("test_")
)


def digest(data: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def listed(wheel: Path) -> dict[str, str]:
    """File -> digest in the wheel's RECORD."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/RECORD"))
        return {
            row[0]: row[1]
            for row in csv.reader(io.StringIO(archive.read(name).decode()))
            if row[0] != name
        }


def present(wheel: Path) -> dict[str, str]:
    """File -> digest of what is there."""
    with zipfile.ZipFile(wheel) as archive:
        return {
            name: digest(archive.read(name))
            for name in archive.namelist()
            if not name.endswith("/RECORD")
        }


def slim(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "tools/slim_wheel.py", *words], cwd=ROOT, capture_output=True, text=True
    )


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "p-1-py3-none-any.whl"
    files = {"p/__init__.py": b"", "p/lib_a.so": b"a", "p/lib_b.so": b"b"}
    record = (
        "".join(f"{name},{digest(data)},{len(data)}\n" for name, data in files.items())
        + "p-1.dist-info/RECORD,,\n"
    )
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (files | {"p-1.dist-info/RECORD": record.encode()}).items():
            archive.writestr(name, data)
    return path


def test_a_slim_wheel_lists_what_it_holds(wheel: Path) -> None:
    assert slim(str(wheel), "p/lib_*", "p/lib_b.so").returncode == 0
    assert listed(wheel) == present(wheel)
    assert set(listed(wheel)) == {"p/__init__.py", "p/lib_b.so"}


def test_a_library_that_has_another_name_is_an_error(wheel: Path) -> None:
    for words in (("p/lib_*", "p/lib_c.so"), ("q/*",)):
        done = slim(str(wheel), *words)
        assert done.returncode and wheel.name in done.stderr
    assert len(listed(wheel)) == 3


def python312() -> str:
    """A Python 3.12 that runs, from PATH or pyenv."""
    known = [shutil.which("python3.12"), *Path.home().glob(".pyenv/versions/3.12.*/bin/python3.12")]
    for path in map(str, filter(None, known)):
        if subprocess.run([path, "-c", "import venv"], capture_output=True).returncode == 0:
            return path
    pytest.skip(
        "the wheels are for Python 3.12, and none is installed here: sudo apt-get install "
        "python3.12-venv"
    )


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_bare_machine_runs_the_check_with_the_wheels(tmp_path: Path) -> None:
    """The list of what the machine has, and the wheels, are all that is there."""
    python, folder, site = python312(), tmp_path / "wheels", tmp_path / "site"
    subprocess.run(["tools/gpu_wheels.sh", str(folder)], cwd=ROOT, check=True)
    wheels = sorted(folder.glob("*.whl"))
    assert sum(path.stat().st_size for path in wheels) <= LIMIT
    slimmed = next(path for path in wheels if path.name.startswith("bitsandbytes"))
    assert listed(slimmed) == present(slimmed)

    uv, bare = find_uv(), tmp_path / "bare"
    own = bare / "bin" / "python"
    subprocess.run([uv, "venv", "--quiet", "--python", python, str(bare)], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", str(own), *BARE], check=True)
    install = [
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--target",
        str(site),
        *map(str, wheels),
    ]
    subprocess.run([python, "-m", "pip", *install], check=True)
    there = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "VIRTUAL_ENV"))
    }
    there |= {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    names = ", ".join((*MODULES, "tests.stock_verl"))
    code = f"from tests.gpu import stand_ins; stand_ins.install(); import {names}"
    subprocess.run([own, "-W", "ignore", "-c", code], cwd=ROOT, env=there, check=True)
    out = tmp_path / "check.jsonl"
    done = subprocess.run(
        [own, "-m", "tests.gpu.check", "--rehearse", "--out", str(out)], cwd=ROOT, env=there
    )
    assert [row for row in rows.read(out).rows if row.status == FAILED] == []
    assert done.returncode == 0
