"""Encoded rows in a file, as the dataset's build leaves them."""

from collections.abc import Iterable
from pathlib import Path

from common.records import Tokens
from data_prep.tokenizer.token_files import COLUMNS, schema_of, write_table


def write_tokens(path: Path, rows: Iterable[Tokens]) -> None:
    """Writes encoded rows to one Arrow file."""
    write_table(path, map(vars, rows), schema_of(COLUMNS))
