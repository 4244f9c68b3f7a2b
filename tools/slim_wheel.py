"""Removes files from a wheel: python tools/slim_wheel.py WHEEL PATTERN [KEPT ...]

Removes the files that match PATTERN and are not KEPT from the archive and from its RECORD, in
place.
"""

from __future__ import annotations

import sys
import zipfile
from fnmatch import fnmatch
from pathlib import Path


def slim(wheel: Path, pattern: str, kept: list[str]) -> list[str]:
    """Rewrites ``wheel``; returns the names of the files it removed.

    Raises ValueError when a file to keep is not in the wheel, or when no file matches.
    """
    smaller = wheel.with_suffix(".part")
    with zipfile.ZipFile(wheel) as old:
        names = old.namelist()
        if missing := sorted(set(kept) - set(names)):
            raise ValueError(f"{wheel.name} has no {', '.join(missing)}")
        gone = [name for name in names if fnmatch(name, pattern) and name not in kept]
        if not gone:
            raise ValueError(
                f"{wheel.name} has nothing that matches {pattern} besides what is kept"
            )
        with zipfile.ZipFile(smaller, "w", zipfile.ZIP_DEFLATED) as new:
            for name in names:
                if name in gone:
                    continue
                data = old.read(name)
                if name.endswith(".dist-info/RECORD"):
                    lines = data.decode().splitlines(keepends=True)
                    data = "".join(
                        line for line in lines if line.split(",")[0] not in gone
                    ).encode()
                new.writestr(old.getinfo(name), data)
    smaller.replace(wheel)
    return gone


if __name__ == "__main__":
    slim(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
