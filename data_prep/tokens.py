"""The encoded rows on disk: Arrow files that the trainer memory-maps."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data_prep.schema import Tokens


def write(path: Path, tokens: Iterable[Tokens]) -> int:
    """Writes one Arrow file (id, input_ids int32 list, prompt_len, length); returns the number of rows."""
    import pyarrow as pa

    schema = pa.schema(
        [
            ("id", pa.string()),
            ("input_ids", pa.list_(pa.int32())),
            ("prompt_len", pa.int32()),
            ("length", pa.int32()),
        ]
    )
    count = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        chunk: list[dict[str, Any]] = []
        for item in tokens:
            chunk.append(vars(item))
            if len(chunk) == 1024:
                writer.write_batch(pa.RecordBatch.from_pylist(chunk, schema))
                chunk = []
            count += 1
        if chunk:
            writer.write_batch(pa.RecordBatch.from_pylist(chunk, schema))
    return count


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
