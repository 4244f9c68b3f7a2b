"""Where records come from: a hub dataset, local parquet or JSONL files, or the generator."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep import arithmetic
from data_prep.files import read_jsonl, sha256_file

SUFFIXES = (".parquet", ".jsonl")


@dataclass(frozen=True)
class Record:
    """One source record and where it stands, for error messages."""

    values: dict[str, Any]
    where: str


@dataclass(frozen=True)
class Source:
    """A recipe's ``data.source`` with the settings that choose its records."""

    name: str
    hub_config: str | None = None
    revision: str | None = None
    split: str = "train"
    generator: dict[str, int] | None = None

    def files(self) -> list[Path]:
        """The local files the name stands for; none for the hub and the generator.

        Raises ValueError for a glob that matches no file, and for a file that is neither parquet nor JSONL.
        """
        if self.name == "arithmetic" or self._is_hub():
            return []
        paths = sorted(Path(p) for p in glob.glob(self.name, recursive=True))
        if not paths:
            raise ValueError(f"data.source={self.name} matches no file")
        for path in paths:
            if path.suffix not in SUFFIXES or not path.is_file():
                raise ValueError(f"{path}: data.source takes {' and '.join(SUFFIXES)} files: give them as a glob")
        return paths

    def fingerprint(self) -> dict[str, Any]:
        """What identifies the records: file hashes, or hub name, config and revision, or generator settings."""
        if self.name == "arithmetic":
            return {"generator": self.generator}
        if self._is_hub():
            return {
                "hub": self.name,
                "config": self.hub_config,
                "revision": self.revision,
                "split": self.split,
            }
        return {"files": sorted([p.name, sha256_file(p)] for p in self.files())}

    def records(self) -> Iterator[Record]:
        """Streams the records. Raises ValueError naming the file when one cannot be read."""
        if self.name == "arithmetic":
            assert self.generator is not None
            for i, values in enumerate(arithmetic.records(**self.generator)):
                yield Record(values, f"arithmetic record {i}")
        elif self._is_hub():
            yield from self._hub_records()
        else:
            for path in self.files():
                yield from _file_records(path)

    def _is_hub(self) -> bool:
        path = Path(self.name)
        return not (glob.has_magic(self.name) or path.suffix in SUFFIXES or path.exists())

    def _hub_records(self) -> Iterator[Record]:
        from datasets import load_dataset
        from datasets.exceptions import DatasetsError

        try:
            stream = load_dataset(self.name, self.hub_config, split=self.split, revision=self.revision, streaming=True)
        except (DatasetsError, OSError) as e:
            raise ValueError(
                f"data.source={self.name} cannot be reached on the hub ({type(e).__name__}); "
                "on a node without internet give local files: data.source=GLOB"
            ) from e
        for i, values in enumerate(stream):
            yield Record(dict(values), f"{self.name} record {i}")


def _file_records(path: Path) -> Iterator[Record]:
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            number = 0
            for batch in pq.ParquetFile(path).iter_batches():
                for values in batch.to_pylist():
                    number += 1
                    yield Record(values, f"{path}, row {number}")
        except (pa.ArrowException, OSError) as e:
            raise ValueError(f"{path}: not a readable parquet file ({e})") from e
    else:
        for number, values in enumerate(read_jsonl(path), 1):
            yield Record(values, f"{path}, row {number}")
