"""The chat template, and the one place where conversations become text and tokens.

Training encodes the whole conversation once; evaluation encodes the same text up to the assistant's
first token. Rendering messages one by one, as verl's own dataset does, would lose the think block under
Qwen3's stock template.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.files import sha256_file
from data_prep.schema import END_OF_TURN, Row, Tokens

TEMPLATE_FILE = Path(__file__).with_name("chat_template.jinja")


@functools.cache
def template() -> str:
    """The Jinja source, as the exported tokenizer carries it."""
    return TEMPLATE_FILE.read_text(encoding="utf-8")


def template_hash() -> str:
    """SHA-256 of the template file, in hex."""
    return sha256_file(TEMPLATE_FILE)


def render_prompt(problem: str) -> str:
    """The text that comes before the assistant's first token."""
    return _render(messages=[{"role": "user", "content": problem.strip()}], add_generation_prompt=True)


def render(problem: str, solution: str) -> str:
    """The whole training text, from the first ``<|im_start|>`` to the assistant's ``<|im_end|>``."""
    messages = [{"role": "user", "content": problem.strip()}, {"role": "assistant", "content": solution.strip()}]
    text = _render(messages=messages, add_generation_prompt=False).rstrip("\n")
    assert text.endswith(END_OF_TURN)
    return text


def encode_prompt(tokenizer: Any, problem: str) -> list[int]:
    """Token ids of ``render_prompt(problem)``, which a model trained on ``encode`` continues."""
    return token_ids(tokenizer, render_prompt(problem))


def encode(tokenizer: Any, row: Row) -> Tokens:
    """Encodes a row's whole conversation once; ``tokenizer`` is transformers' or the Rust one inside it.

    ``prompt_len`` tokens equal ``encode_prompt(row.problem)``; the rest, from ``<think>`` to
    ``<|im_end|>``, carry the loss. Raises ValueError when the tokenizer merges across that border.
    """
    ids = token_ids(tokenizer, render(row.problem, row.solution))
    prompt = encode_prompt(tokenizer, row.problem)
    if ids[: len(prompt)] != prompt:
        raise ValueError(f"row {row.id}: the tokenizer merges the prompt with the answer; it cannot be used here")
    return Tokens(id=row.id, input_ids=np.asarray(ids, np.int32), prompt_len=len(prompt), length=len(ids))


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """Ids of a text as it is, without special tokens of the tokenizer's own."""
    rust = getattr(tokenizer, "backend_tokenizer", tokenizer)
    # The fast variant leaves out character offsets: a fifth less time.
    return rust.encode_batch_fast([text], add_special_tokens=False)[0].ids


@functools.cache
def _compiled() -> Any:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # transformers' own settings, so that apply_chat_template renders the same text.
    return ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(template())


def _render(**context: Any) -> str:
    return _compiled().render(**context)
