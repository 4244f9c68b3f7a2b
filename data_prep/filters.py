"""Row filters: each a named question with one answer, asked in a fixed order and counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from data_prep.answers import grade_state
from data_prep.schema import THINK_CLOSE, THINK_OPEN, Row
from data_prep.vocabulary import CONTROL_TOKENS


@dataclass(frozen=True)
class Filter:
    """Keeps a row when ``keep`` says so; ``name`` is the reason in the funnel when it does not."""

    name: str
    keep: Callable[[Row], bool]


def standard(max_chars: int) -> list[Filter]:
    """The filters that need only the row's text, in the order they are asked."""
    return [
        Filter("control token in the text", _no_control_token),
        Filter("not exactly one think block", _one_think_block),
        Filter(
            "no boxed answer after the think block",
            lambda row: grade_state(row.solution, "stop")[0] == "boxed",
        ),
        Filter(f"over {max_chars} characters", lambda row: len(row.solution) <= max_chars),
        Filter("problem seen before", _first_of_its_problem()),
    ]


def _no_control_token(row: Row) -> bool:
    """Text that spells ``<|im_end|>`` or its like would be encoded as the token and teach stopping there."""
    texts = (row.problem, row.solution)
    spelled = any(token in text for token in CONTROL_TOKENS for text in texts)
    return not spelled and THINK_OPEN not in row.problem and THINK_CLOSE not in row.problem


def _one_think_block(row: Row) -> bool:
    text = row.solution
    return text.startswith(THINK_OPEN) and text.count(THINK_OPEN) == 1 and text.count(THINK_CLOSE) == 1


def _first_of_its_problem() -> Callable[[Row], bool]:
    seen: set[str] = set()

    def keep(row: Row) -> bool:
        problem = " ".join(row.problem.split())
        new = problem not in seen
        seen.add(problem)
        return new

    return keep
