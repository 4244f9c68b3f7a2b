"""Installs Debian's packages that tests need, one process at a time."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from filelock import FileLock


def install(programs: tuple[str, ...], packages: tuple[str, ...]) -> str | None:
    """Installs ``packages`` where ``programs`` are missing and the tests run as root; returns what
    to do where that is not possible.
    """
    with FileLock(Path(tempfile.gettempdir()) / "warmstart-tests-apt.lock"):
        if all(map(shutil.which, programs)):
            return None
        wanted = f"apt-get install {' '.join(packages)}"
        if os.getuid() != 0 or not shutil.which("apt-get"):
            return wanted
        quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for words in (
            ["update", "--quiet"],
            ["install", "--quiet", "--yes", "--no-install-recommends", *packages],
        ):
            done = subprocess.run(["apt-get", *words], env=quiet, capture_output=True, text=True)
        return f"{wanted} ({done.stderr.strip()})" if done.returncode else None
