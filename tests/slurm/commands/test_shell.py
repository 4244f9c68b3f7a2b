"""The shell of the job scripts and of the image's build script is clean."""

import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT


def test_shellcheck_finds_nothing() -> None:
    shellcheck = Path(sys.prefix) / "bin" / "shellcheck"
    files = [
        str(p.relative_to(ROOT))
        for pattern in ("*.sh", "*.env")
        for p in (ROOT / "slurm").glob(pattern)
    ]
    done = subprocess.run(
        [shellcheck, "--external-sources", *files], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_the_images_build_script_is_clean(tmp_path: Path) -> None:
    text = (ROOT / "slurm" / "warmstart.def").read_text()
    header, *sections = re.split(r"^%(\w+).*\n", text, flags=re.MULTILINE)
    assert re.fullmatch(r"Bootstrap: docker\nFrom: nvidia/cuda:\S+-devel-\S+\n+", header)
    bodies = dict(zip(sections[::2], sections[1::2], strict=True))
    assert set(bodies) == {"help", "files", "post", "environment", "test"}
    copied = [line.split() for line in bodies["files"].splitlines() if line.strip()]
    assert all((ROOT / source).exists() and Path(target).is_absolute() for source, target in copied)
    for name in ("post", "environment", "test"):
        (tmp_path / name).write_text(f"#!/bin/sh\n{bodies[name]}")
    shellcheck = [
        Path(sys.prefix) / "bin" / "shellcheck",
        *(tmp_path / name for name in ("post", "environment", "test")),
    ]
    done = subprocess.run(shellcheck, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    toolkit = re.search(
        r"^cuda-toolkit==(\S+)", (ROOT / "requirements-gpu.txt").read_text(), re.MULTILINE
    )
    assert toolkit and f"cuda:{toolkit[1]}-devel" in header, (
        "the image has the CUDA that torch is built with"
    )
