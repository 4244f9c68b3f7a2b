"""Where records come from: a hub dataset, local parquet or JSONL files, or the generator.

A source is cut into units, parts of a file that a worker reads on its own.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep import arithmetic
from data_prep.files import sha256_file

SUFFIXES = (".parquet", ".jsonl")
JSONL_UNIT_BYTES = 16 << 20


@dataclass(frozen=True)
class Record:
    """One source record and where it stands, for error messages."""

    values: dict[str, Any]
    where: str


class BadRecord(ValueError):
    """A record that is not what its schema promises; the message names file, row and column."""


@dataclass(frozen=True)
class Unit:
    """A part of a source: a row group of a parquet file, a byte range of a JSONL file, or the generator."""

    path: Path | None
    start: int = 0
    stop: int = 0
    lines_before: int = 0
    """Newlines of the file before ``start``."""
    rows: int = 0
    """Records in it, for the progress bar."""
    generator: dict[str, int] | None = None

    def records(self) -> Iterator[Record | BadRecord]:
        """Streams the unit's records; one that cannot be read is yielded as the error that names it."""
        if self.path is None:
            assert self.generator is not None
            for i, values in enumerate(arithmetic.records(**self.generator)):
                yield Record(values, f"arithmetic record {i}")
        elif self.path.suffix == ".parquet":
            yield from self._parquet_records(self.path)
        else:
            yield from self._jsonl_records(self.path)

    def _parquet_records(self, path: Path) -> Iterator[Record | BadRecord]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            file = pq.ParquetFile(path)
            number = sum(file.metadata.row_group(g).num_rows for g in range(self.start))
            for batch in file.iter_batches(batch_size=256, row_groups=range(self.start, self.stop)):
                for i in range(batch.num_rows):
                    number += 1
                    try:
                        yield Record(batch.slice(i, 1).to_pylist()[0], f"{path}, row {number}")
                    except UnicodeDecodeError as e:
                        yield BadRecord(f"{path}, row {number}: not valid UTF-8 ({e})")
        except (pa.ArrowException, OSError) as e:
            raise ValueError(f"{path}, row group {self.start}: not readable parquet ({e})") from e

    def _jsonl_records(self, path: Path) -> Iterator[Record | BadRecord]:
        """Lines that begin inside the byte range."""
        number = self.lines_before
        with path.open("rb") as f:
            if self.start:
                f.seek(self.start - 1)
                number += f.readline() != b"\n"
            while f.tell() < self.stop:
                line = f.readline()
                number += 1
                where = f"{path}, row {number}"
                if not line.strip():
                    continue
                try:
                    values = json.loads(line.decode())
                except (ValueError, RecursionError) as e:
                    yield BadRecord(f"{where}: not valid JSON ({e})")
                    continue
                yield Record(values, where) if isinstance(values, dict) else BadRecord(f"{where}: not an object")


@dataclass(frozen=True)
class Source:
    """A recipe's ``data.source`` with the settings that choose its records."""

    name: str
    hub_config: str | None = None
    revision: str | None = None
    split: str = "train"
    generator: dict[str, int] | None = None

    def open(self) -> tuple[list[Unit], dict[str, Any]]:
        """The units, and what identifies the records: file hashes, hub commit, or generator settings.

        Raises ValueError for a glob that matches nothing, a file of another kind, an empty or damaged file,
        and an unreachable hub.
        """
        if self.name == "arithmetic":
            assert self.generator is not None
            unit = Unit(None, generator=self.generator, rows=self.generator["problems"])
            return [unit], {"generator": self.generator}
        hub = {"hub": self.name, "config": self.hub_config, "split": self.split} if self._is_hub() else {}
        if hub:
            from data_prep.hub import download

            paths, hub["revision"] = download(self.name, self.hub_config, self.split, self.revision)
        else:
            paths = _matches(self.name)
        units = [unit for path in paths for unit in _units(path)]
        return units, hub | {"files": sorted([p.name, sha256_file(p)] for p in paths)}

    def _is_hub(self) -> bool:
        path = Path(self.name)
        return not (glob.has_magic(self.name) or path.suffix in SUFFIXES or path.exists())


def _matches(pattern: str) -> list[Path]:
    paths = sorted(Path(p) for p in glob.glob(pattern, recursive=True))
    if not paths:
        raise ValueError(f"data.source={pattern} matches no file")
    for path in paths:
        if path.suffix not in SUFFIXES or not path.is_file():
            raise ValueError(f"{path}: data.source takes {' and '.join(SUFFIXES)} files: give them as a glob")
    return paths


def _jsonl_units(path: Path) -> list[Unit]:
    units, at, lines = [], 0, 0
    with path.open("rb") as f:
        while chunk := f.read(JSONL_UNIT_BYTES):
            count = chunk.count(b"\n")
            units.append(Unit(path, at, at + len(chunk), lines, count))
            at += len(chunk)
            lines += count
    if not units:
        raise ValueError(f"{path} is empty")
    return units


def _units(path: Path) -> list[Unit]:
    if path.suffix == ".jsonl":
        return _jsonl_units(path)
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.ParquetFile(path).metadata
    except (pa.ArrowException, OSError) as e:
        raise ValueError(f"{path}: not a readable parquet file ({e})") from e
    if not metadata.num_rows:
        raise ValueError(f"{path} has no rows")
    return [Unit(path, g, g + 1, rows=metadata.row_group(g).num_rows) for g in range(metadata.num_row_groups)]
