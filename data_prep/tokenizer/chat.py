"""The chat template; the only place where conversations are rendered as text and tokens.

Training renders a conversation as one text and encodes its prompt and answer separately; evaluation
encodes the same prompt. Rendering messages one by one, as verl's own dataset does, would lose the
think block with Qwen3's stock template.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.files import sha256_file
from common.records import END_OF_TURN, Row, Tokens

TEMPLATE_FILE = Path(__file__).with_name("chat_template.jinja")


@functools.cache
def template() -> str:
    """Returns the Jinja source, which is also stored in the exported tokenizer."""
    return TEMPLATE_FILE.read_text(encoding="utf-8")


def template_hash() -> str:
    """Returns the SHA-256 of the template file, in hex."""
    return sha256_file(TEMPLATE_FILE)


def messages(problem: str) -> list[dict[str, str]]:
    """Returns the messages of a prompt: one user turn with the problem."""
    return [{"role": "user", "content": problem.strip()}]


def render_prompt(problem: str) -> str:
    """Returns the prompt: the text before the assistant's first token."""
    return _render(messages=messages(problem), add_generation_prompt=True)


def render(problem: str, solution: str) -> str:
    """Returns the full training text, from the first ``<|im_start|>`` to the assistant's
    ``<|im_end|>``.
    """
    turns = [*messages(problem), {"role": "assistant", "content": solution.strip()}]
    text = _render(messages=turns, add_generation_prompt=False).rstrip("\n")
    assert text.endswith(END_OF_TURN)
    return text


def encode_prompt(tokenizer: Any, problem: str) -> list[int]:
    """Returns the token ids of ``render_prompt(problem)``, the same as the prompt's in
    ``encode``.
    """
    return token_ids(tokenizer, render_prompt(problem))


def encode(tokenizer: Any, rows: Sequence[Row]) -> list[Tokens]:
    """Encodes conversations; ``tokenizer`` is transformers' or the Rust tokenizer inside it.

    The first ``prompt_len`` tokens are ``encode_prompt(row.problem)``; the rest, from ``<think>``
    to ``<|im_end|>``, carry the loss. The two are encoded separately, so that no token spans both,
    as in generation.
    """
    texts = []
    for row in rows:
        text, prompt = render(row.problem, row.solution), render_prompt(row.problem)
        assert text.startswith(prompt)
        texts += [prompt, text[len(prompt) :]]
    ids = _encoded(tokenizer, texts)
    return [
        Tokens(row.id, np.array(prompt + rest, np.int32), len(prompt), len(prompt) + len(rest))
        for row, prompt, rest in zip(rows, ids[::2], ids[1::2], strict=True)
    ]


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """Returns the token ids of a text, without adding special tokens."""
    return _encoded(tokenizer, [text])[0]


def _encoded(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    rust = getattr(tokenizer, "backend_tokenizer", tokenizer)
    # The fast variant omits character offsets, which saves a fifth of the time.
    return [encoded.ids for encoded in rust.encode_batch_fast(texts, add_special_tokens=False)]


@functools.cache
def _compiled() -> Any:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # The same settings as in transformers, so that apply_chat_template renders the same text.
    return ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(
        template()
    )


def _render(**context: Any) -> str:
    return _compiled().render(**context)
