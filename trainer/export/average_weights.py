"""The tensors of an average, summed one tensor at a time on the CPU.

Sums are computed piecewise in fp64 and divided once, so that they do not depend on the order of
their terms; in fp32 they do, and a few weights in a million then round to the next bf16 number.
torch rounds fp64 to bf16 by way of fp32, as for any tensor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import torch

from trainer.export.weights import Weights

PIECE = 2**22
"""Number of elements that are converted to fp64 at a time."""


class Average:
    """A weighted mean of models with the same shape; the weights of ``terms`` add up to 1.

    Memory holds the sum in fp64 and one tensor in fp32.
    """

    def __init__(self, terms: Sequence[tuple[Fraction, Weights]]) -> None:
        self.sizes = terms[0][1].sizes
        self._denominator = math.lcm(*(weight.denominator for weight, _ in terms))
        # Whole numbers, so that their products with fp32 numbers are exact.
        self._terms = [(float(weight * self._denominator), term) for weight, term in terms]

    def read(self, name: str, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        """Returns the tensor, converted to ``dtype``."""
        total = torch.zeros(self.sizes[name], dtype=torch.float64)
        sums = total.view(-1).split(PIECE)
        for factor, term in self._terms:
            values = term.read(name, torch.float32).view(-1)
            for piece, value in zip(sums, values.split(PIECE), strict=True):
                piece.add_(value, alpha=factor)
            del values, value
        return total.div_(self._denominator).to(dtype)
