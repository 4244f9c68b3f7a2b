"""The encoded rows on disk: Arrow files that the trainer memory-maps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from data_prep.schema import Tokens

COLUMNS = {"id": "string", "input_ids": "int32 list", "prompt_len": "int32", "length": "int32"}
PART = {
    **dict.fromkeys(("id", "source", "uuid", "problem", "solution", "answer"), "string"), "trace": "int32",
    "input_ids": "int32 list", "prompt_len": "int32", "length": "int32",
}  # fmt: skip
"""Columns of a worker's file: a row and its tokens."""
BATCH = 256
"""Rows of one record batch."""


def write(path: Path, rows: Iterable[Tokens]) -> int:
    """Writes encoded rows as one Arrow file; returns their number."""
    return write_table(path, map(vars, rows), COLUMNS)


def write_table(path: Path, rows: Iterable[dict[str, Any]], columns: dict[str, str]) -> int:
    """Streams ``rows`` into one Arrow file with ``columns``; returns their number."""
    import pyarrow as pa

    count, rows = 0, iter(rows)
    with writer(path, columns) as sink:
        while batch := list(islice(rows, BATCH)):
            arrays = [pa.array([row[f.name] for row in batch], f.type) for f in sink.schema]
            sink.write_batch(pa.RecordBatch.from_arrays(arrays, schema=sink.schema))
            count += len(batch)
    return count


class ArrowFile:
    """An open Arrow file and its schema."""

    def __init__(self, sink: Any, schema: Any) -> None:
        self.schema = schema
        self.write_batch = sink.write_batch
        self.write_table = sink.write_table


@contextmanager
def writer(path: Path, columns: dict[str, str]) -> Iterator[ArrowFile]:
    """Opens ``path`` for tables or record batches with ``columns``."""
    import pyarrow as pa

    kinds = {"string": pa.string(), "int32": pa.int32(), "int32 list": pa.list_(pa.int32())}
    schema = pa.schema([(name, kinds[kind]) for name, kind in columns.items()])
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as file:
        yield ArrowFile(file, schema)


def read(path: Path) -> Any:
    """The file as a memory-mapped pyarrow Table. Raises ValueError when it is missing or not Arrow."""
    import pyarrow as pa

    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except FileNotFoundError as e:
        raise ValueError(f"{path} does not exist: build the dataset first (warmstart data RECIPE)") from e
    except pa.ArrowInvalid as e:
        raise ValueError(f"{path}: not an Arrow file ({e}); delete its dataset folder and build it again") from e


def get(table: Any, i: int) -> Tokens:
    """Row ``i`` of a table that ``read`` returned; ``input_ids`` is an int32 numpy array."""
    row = {name: table.column(name)[i] for name in ("id", "input_ids", "prompt_len", "length")}
    return Tokens(
        id=row["id"].as_py(),
        input_ids=row["input_ids"].values.to_numpy(),
        prompt_len=row["prompt_len"].as_py(),
        length=row["length"].as_py(),
    )
