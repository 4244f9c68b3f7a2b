"""Writes the dataset: rows.parquet, tokens, held-out problems, and the spare problems that can be
used for RL.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from common.files import write_jsonl
from common.progress import progress
from common.records import ROW
from data_prep.benchmarks.sets import LINE, problem_line
from data_prep.output.folder import token_file
from data_prep.output.select import Chosen
from data_prep.rows.map_shard import Entry
from data_prep.tokenizer import token_files

ROWS = "rows.parquet"
"""Every row, with its split in a column of its own; a row group holds rows of one split."""
HELD_OUT, SPARE = "heldout.jsonl", "spare.jsonl"
"""Files of problems, for ``benchmarks.sets.load_file``: the test split's rows, and good rows beyond
the number requested.
"""


def write(target: Path, parts: Path, chosen: Chosen) -> None:
    """Copies the chosen rows from the workers' part files to the dataset's files, batch by
    batch.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema, encoding = (
        token_files.schema_of((*ROW, "split")),
        token_files.schema_of(token_files.COLUMNS),
    )
    with (
        progress("rows written", sum(map(len, chosen.splits.values()))) as advance,
        pq.ParquetWriter(target / ROWS, schema) as file,
        ThreadPoolExecutor(2) as threads,
    ):
        for split, entries in chosen.splits.items():
            with token_files.writer(token_file(target, split), encoding) as encoded:
                for table in gather(parts, entries):
                    texts = table.select(ROW).append_column(
                        "split", pa.array([split] * table.num_rows)
                    )
                    jobs = (
                        threads.submit(file.write_table, texts),
                        threads.submit(
                            encoded.write_table, table.select(token_files.COLUMNS).combine_chunks()
                        ),
                    )
                    for job in jobs:
                        job.result()
                    advance(table.num_rows)
    for name, entries in ((HELD_OUT, chosen.splits["test"]), (SPARE, chosen.spare)):
        tables = (table.select(LINE) for table in gather(parts, entries))
        rows = (row for table in tables for row in table.to_pylist())
        write_jsonl(target / name, map(problem_line, rows))


def gather(parts: Path, entries: Sequence[Entry]) -> Iterator[Any]:
    """Yields tables of ``token_files.BATCH`` rows (the last may be smaller) in the order of
    ``entries``, from memory-mapped part files. A row gets its entry's id, which may differ from the
    one in its part file.
    """
    import pyarrow as pa

    for start in range(0, len(entries), token_files.BATCH):
        # Reopened for each batch, so that pages already read do not stay mapped.
        opened: dict[int, Any] = {}
        slices = []
        batch = entries[start : start + token_files.BATCH]
        for e in batch:
            if e.part not in opened:
                opened[e.part] = token_files.read(parts / f"{e.part}.arrow")
            slices.append(opened[e.part].slice(e.position, 1))
        table = pa.concat_tables(slices)
        at = table.schema.get_field_index("id")
        names = pa.array([e.id for e in batch], table.schema.field(at).type)
        yield table.set_column(at, table.schema.field(at), names)
