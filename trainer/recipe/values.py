"""Types of values for a recipe's keys with rules beyond a plain type and range."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from data_prep.tokenizer.prompt import PROBLEM
from data_prep.tokenizer.tokenizers import CONTROL_TOKENS
from trainer.planning.hardware import GPUS

LONGEST_NAME = 200
"""In bytes; a file's name may have 255, and ours have suffixes."""
_NAME = re.compile(r"(?![.-])[^/\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def _name(text: str) -> str:
    if not _NAME.fullmatch(text) or ".." in text or len(text.encode()) > LONGEST_NAME:
        raise ValueError(
            f"a name of 1 to {LONGEST_NAME} bytes, without /, .. or control characters, and not "
            "beginning with . or - (run.root and data.dir say in which folder)"
        )
    return text


def _kind_of_gpu(name: str) -> str:
    if name not in GPUS:
        raise ValueError(f"one of {', '.join(GPUS)}")
    return name


def _two_shares(betas: list[float]) -> list[float]:
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ValueError("two numbers in [0, 1)")
    return betas


def _without_control_tokens(text: str) -> str:
    if any(token in text for token in CONTROL_TOKENS):
        raise ValueError("text without control tokens such as <|im_end|>")
    return _without_interpolation(text)


def _without_interpolation(text: str) -> str:
    if "${" in text:
        raise ValueError("text without ${, which the configuration would replace")
    return text


def _with_problem(text: str) -> str:
    if text.count(PROBLEM) != 1:
        raise ValueError(f"text with {PROBLEM} once")
    return text


Name = Annotated[str, AfterValidator(_name)]
"""Name of a run or a dataset, which is also its folder's."""
Folder = Annotated[str, Field(min_length=1)]
KindOfGpu = Annotated[str, AfterValidator(_kind_of_gpu)]
TwoShares = Annotated[list[float], AfterValidator(_two_shares)]
Share = Annotated[float, Field(ge=0, le=1)]
Plain = Annotated[str, AfterValidator(_without_control_tokens)]
Asking = Annotated[Plain, AfterValidator(_with_problem)]
Command = Annotated[str, AfterValidator(_without_interpolation)]


def not_finite(values: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], float]]:
    """Yields (place, value) of every number in nested mappings that is infinite or not a number."""
    if isinstance(values, dict):
        for key, value in values.items():
            yield from not_finite(value, (*place, str(key)))
    elif isinstance(values, float) and not math.isfinite(values):
        yield place, values
