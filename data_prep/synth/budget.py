"""Cost of generation: an estimate before the first call, a cap, and the price of the tokens
used.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from common.errors import UserError
from data_prep.synth.prompts import Request

CHARACTERS_A_TOKEN = 2.5
"""Assumed characters per token of these prompts and replies, digits and tags included. It is low,
so that the estimate is high: $59 at the published dataset's size and prices, for which its authors
paid $55.
"""


@dataclass(frozen=True)
class Budget:
    """Prices, and the most that may be spent."""

    usd_per_million_input: float
    usd_per_million_output: float
    max_usd: float | None
    """None: ask on the terminal."""

    def estimate(self, requests: Sequence[Request]) -> float:
        """Returns the estimated cost of these requests in dollars."""
        return self.price(
            sum(len(request.prompt) for request in requests) / CHARACTERS_A_TOKEN,
            sum(request.expected for request in requests) / CHARACTERS_A_TOKEN,
        )

    def price(self, input_tokens: float, output_tokens: float) -> float:
        """Returns the price of these token counts in dollars."""
        return (
            self.usd_per_million_input * input_tokens + self.usd_per_million_output * output_tokens
        ) / 1e6

    def cap(self, spent: float, estimate: float, requests: int) -> float:
        """Returns the most dollars that may be spent in all, with ``requests`` more to submit for
        about ``estimate``.

        Raises UserError when that exceeds the cap, the user declines, or there is no terminal to
        ask on.
        """
        text = f"{requests:,} requests, about ${estimate:,.2f}" + (
            f" in addition to ${spent:,.2f} already spent" if spent else ""
        )
        if self.max_usd is None:
            if not sys.stdin.isatty():
                cents = math.ceil(100 * (spent + estimate))
                raise UserError(f"{text}: allow it with data.synth.max_usd={cents / 100} or more")
            if input(f"{text}. Continue? [y/N] ").strip().lower() not in ("y", "yes"):
                raise UserError(f"{text}: you declined, so nothing more was submitted")
            return spent + 1.5 * estimate
        if spent + estimate > self.max_usd:
            raise UserError(
                f"{text} is over data.synth.max_usd={self.max_usd}: raise it, or request fewer "
                "problems"
            )
        return self.max_usd
