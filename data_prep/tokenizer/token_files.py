"""Reads and writes encoded rows: Arrow files that the trainer memory-maps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.records import Tokens

COLUMNS = tuple(field.name for field in fields(Tokens))
BATCH = 256
"""Rows per record batch."""


def schema_of(columns: Iterable[str]) -> Any:
    """Returns the Arrow schema for these fields of Row or Tokens; others are strings."""
    import pyarrow as pa

    kinds = {
        "trace": pa.int32(),
        "input_ids": pa.list_(pa.int32()),
        "prompt_len": pa.int32(),
        "length": pa.int32(),
    }
    return pa.schema([(name, kinds.get(name, pa.string())) for name in columns])


def write_table(path: Path, rows: Iterable[dict[str, Any]], schema: Any) -> int:
    """Streams ``rows`` into one Arrow file of ``schema``. Returns the number of rows."""
    import pyarrow as pa

    count, rows = 0, iter(rows)
    with writer(path, schema) as sink:
        while batch := list(islice(rows, BATCH)):
            sink.write_batch(pa.RecordBatch.from_pylist(batch, schema))
            count += len(batch)
    return count


@contextmanager
def writer(path: Path, schema: Any) -> Iterator[Any]:
    """Yields a writer for tables or record batches of ``schema``, to an Arrow file at ``path``."""
    import pyarrow as pa

    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as file:
        yield file


def read(path: Path) -> Any:
    """Returns the file as a memory-mapped pyarrow Table. Raises UserError when it is missing or not
    Arrow.
    """
    import pyarrow as pa

    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except FileNotFoundError as e:
        raise UserError(
            f"{path} does not exist: build the dataset first (warmstart data RECIPE)"
        ) from e
    except pa.ArrowInvalid as e:
        raise UserError(
            f"{path}: not an Arrow file ({e}); delete its dataset folder and build it again"
        ) from e


def get(table: Any, i: int) -> Tokens:
    """Returns row ``i`` of a table from ``read``; ``input_ids`` is an int32 numpy array of shape
    (length,).
    """
    row = {name: table.column(name)[i] for name in ("id", "input_ids", "prompt_len", "length")}
    return Tokens(
        id=row["id"].as_py(),
        input_ids=row["input_ids"].values.to_numpy(),
        prompt_len=row["prompt_len"].as_py(),
        length=row["length"].as_py(),
    )
