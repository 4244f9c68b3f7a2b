"""The pre-encoded tokens as a torch dataset: no tokenizer, no template, no copy before a row is
read.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch.utils.data import Dataset

from data_prep.tokenizer import token_files


class TokenDataset(Dataset):
    """Rows of one Arrow file, memory-mapped.

    An item holds ``input_ids``, ``position_ids`` (int64) and ``loss_mask`` (int64, 1 on
    the assistant's tokens), each of shape (length,).
    """

    def __init__(self, path: Path) -> None:
        self.table = token_files.read(path)
        self.lengths: list[int] = self.table.column("length").to_pylist()
        self.prompt_lens: list[int] = self.table.column("prompt_len").to_pylist()

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        row = token_files.get(self.table, i)
        mask = torch.ones(row.length, dtype=torch.int64)
        mask[: row.prompt_len] = 0
        return {
            "input_ids": torch.from_numpy(row.input_ids.astype("int64")),
            "position_ids": torch.arange(row.length),
            "loss_mask": mask,
        }

    def supervised(self, i: int) -> int:
        """Returns the number of supervised tokens of row ``i``."""
        return self.lengths[i] - self.prompt_lens[i]

    def id(self, i: int) -> str:
        """Returns the id of row ``i``."""
        return self.table.column("id")[i].as_py()
