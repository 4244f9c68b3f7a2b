"""Shows one row as the trainer sees it: the tokens, and which of them carry the loss."""

from __future__ import annotations

from pathlib import Path

from common.errors import UserError
from common.text import printable
from data_prep.output.folder import token_file
from data_prep.tokenizer import token_files, tokenizers

GREEN, GREY, RESET = "\x1b[32m", "\x1b[90m", "\x1b[0m"


def show(dataset: Path, index: int, split: str, colour: bool) -> str:
    """Returns row ``index`` of a split as text: prompt grey, loss tokens green (marked by lines
    without ``colour``).

    Raises UserError when the dataset is not built or has no such row.
    """
    table = token_files.read(token_file(dataset, split))
    if not 0 <= index < table.num_rows:
        raise UserError(f"{dataset} has {table.num_rows:,} {split} rows; there is no row {index}")
    row = token_files.get(table, index)
    tokenizer = tokenizers.load(dataset / "tokenizer")
    ids = [int(i) for i in row.input_ids]
    prompt, answer = (
        printable(tokenizer.decode(ids[: row.prompt_len])),
        printable(tokenizer.decode(ids[row.prompt_len :])),
    )
    first, last = tokenizer.convert_ids_to_tokens([ids[row.prompt_len], ids[-1]])
    head = (
        f"row {row.id}: {row.length} tokens, {row.prompt_len} of prompt, "
        f"{row.length - row.prompt_len} with loss (first {first!r}, last {last!r})"
    )
    if colour:
        return f"{head}\n{GREY}{prompt}{GREEN}{answer}{RESET}"
    return f"{head}\n--- no loss ---\n{prompt}\n--- loss ---\n{answer}\n--- end ---"
