"""Sums of losses by row, from the slices of a packed micro-batch, against a sum row by row."""

import pytest
import torch

from trainer.batching.packing import by_document, pack

LENGTHS, PROMPTS = (7, 2, 12, 5), (3, 1, 11, 2)


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_each_row_has_its_losses_whatever_slices_they_lie_in(parts: int) -> None:
    rows, place, expected = [], 0, []
    for length, prompt in zip(LENGTHS, PROMPTS, strict=True):
        mask = torch.ones(length, dtype=torch.int64)
        mask[:prompt] = 0
        rows.append({"input_ids": torch.arange(length), "loss_mask": mask})
        # A token's loss is the place of the token before it, which predicts it.
        losses = [place + i - 1 for i in range(prompt, length)]
        expected.append((sum(losses), len(losses)))
        place += length
    total = torch.zeros(2, len(LENGTHS))
    for part in range(parts):
        packed = pack(rows, parts, part)
        total += by_document(packed, (packed.supervised + packed.start).float())[:, : len(LENGTHS)]
    assert [tuple(row) for row in total.T.tolist()] == expected
