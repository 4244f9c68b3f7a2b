"""Units of a source: parts that workers read independently, record by record."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from data_prep.source import arithmetic

JSONL_UNIT_BYTES = 4 << 20
PARQUET_UNIT_ROWS = 4_000
"""Maximum number of rows per unit. A larger row group is split; each worker decodes the group up to
its own rows, which costs little.
"""


@dataclass(frozen=True)
class Record:
    """One source record and its place in the source, for error messages."""

    values: dict[str, Any]
    where: str


class BadRecord(ValueError):
    """A record that does not match its schema; the message names file, row and column."""


def by_place(messages: Iterable[str]) -> list[str]:
    """Returns messages of bad records by file and row; numbers in them are compared as numbers."""

    def key(message: str) -> tuple[list[Any], str]:
        # Odd pieces are numbers: the one with more digits is larger.
        pieces: list[Any] = re.split(r"([0-9]+)", message)
        digits = [piece.lstrip("0") for piece in pieces[1::2]]
        pieces[1::2] = [(len(number), number) for number in digits]
        return pieces, message

    return sorted(messages, key=key)


@dataclass(frozen=True)
class Unit:
    """A part of a source: a range of a file (rows of parquet, bytes of JSONL), or the generator."""

    path: Path | None
    """Absolute, because workers may have another working directory; None for the generator."""
    start: int = 0
    stop: int = 0
    lines_before: int = 0
    """Number of newlines in the file before ``start``."""
    rows: int = 0
    """Number of records, for the progress bar."""
    group: int = 0
    """Index of the parquet row group that has the rows."""
    generator: dict[str, int] | None = None

    def records(self, columns: Collection[str] = ()) -> Iterator[Record | BadRecord]:
        """Yields the unit's records; one that cannot be read is yielded as a BadRecord.

        If a parquet file has all of ``columns``, only those are read. Raises UserError when it is
        damaged.
        """
        if self.path is None:
            assert self.generator is not None
            for i, values in enumerate(arithmetic.records(**self.generator)):
                yield Record(values, f"arithmetic record {i}")
        elif self.path.suffix == ".parquet":
            yield from self._parquet_records(self.path, columns)
        else:
            yield from self._jsonl_records(self.path)

    def _parquet_records(
        self, path: Path, columns: Collection[str]
    ) -> Iterator[Record | BadRecord]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            # By default pyarrow holds all of a column's row group in memory at once.
            with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
                wanted = (
                    list(columns) if columns and {*columns} <= {*file.schema_arrow.names} else None
                )
                at = sum(file.metadata.row_group(g).num_rows for g in range(self.group))
                for batch in file.iter_batches(
                    batch_size=256, row_groups=[self.group], columns=wanted
                ):
                    for i in range(max(0, self.start - at), min(batch.num_rows, self.stop - at)):
                        where = f"{path}, row {at + i + 1}"
                        try:
                            yield Record(batch.slice(i, 1).to_pylist()[0], where)
                        except UnicodeDecodeError as e:
                            yield BadRecord(f"{where}: not valid UTF-8 ({e})")
                    at += batch.num_rows
                    if at >= self.stop:
                        return
        except (pa.ArrowException, OSError) as e:
            raise UserError(
                f"{path}, rows {self.start + 1} to {self.stop}: not readable parquet ({e})"
            ) from e

    def _jsonl_records(self, path: Path) -> Iterator[Record | BadRecord]:
        """Yields the records of the lines that begin inside the byte range."""
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
                yield (
                    Record(values, where)
                    if isinstance(values, dict)
                    else BadRecord(f"{where}: not an object")
                )


def cut(path: Path) -> list[Unit]:
    """Returns the units of a parquet or JSONL file. Raises UserError when it is empty or
    damaged.
    """
    if path.suffix == ".jsonl":
        return _jsonl_units(path)
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.ParquetFile(path).metadata
    except (pa.ArrowException, OSError) as e:
        raise UserError(f"{path}: not a readable parquet file ({e})") from e
    if not metadata.num_rows:
        raise UserError(f"{path} has no rows")
    units, at = [], 0
    for g in range(metadata.num_row_groups):
        end = at + metadata.row_group(g).num_rows
        for start in range(at, end, PARQUET_UNIT_ROWS):
            stop = min(end, start + PARQUET_UNIT_ROWS)
            units.append(Unit(path, start, stop, rows=stop - start, group=g))
        at = end
    return units


def _jsonl_units(path: Path) -> list[Unit]:
    units, at, lines = [], 0, 0
    with path.open("rb") as f:
        while chunk := f.read(JSONL_UNIT_BYTES):
            count = chunk.count(b"\n")
            units.append(Unit(path, at, at + len(chunk), lines, count))
            at += len(chunk)
            lines += count
    if not units:
        raise UserError(f"{path} is empty: each line needs one record")
    return units
