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

from common.files import sha256_json
from common.records import END_OF_TURN, Problem, Row, Tokens
from data_prep.tokenizer.prompt import Prompt

TEMPLATE_FILE = Path(__file__).with_name("chat_template.jinja")
EXPORT_FILE = Path(__file__).with_name("export_template.jinja")
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r"})

_USER, _ASSISTANT = "user", "assistant"
_THOUGHT = "<think>\n2 + 2 = 4\n</think>\n\nThe answer is \\boxed{4}."
PROBES: tuple[tuple[tuple[tuple[str, str], ...], bool], ...] = (
    (((_USER, "What is 2 + 2?"),), False),
    (((_USER, "What is 2 + 2?"),), True),
    (((_USER, "What is 2 + 2?"), (_ASSISTANT, _THOUGHT)), False),
    (((_USER, "What is 2 + 2?"), (_ASSISTANT, _THOUGHT)), True),
    (
        ((_USER, "  Sum:\n\n  1 ≤ n²\t→ ∑ € 数学 🙂 <b>&amp;</b> \n"), (_ASSISTANT, "\n √ \n")),
        False,
    ),
    (((_USER, ""), (_ASSISTANT, "")), False),
    (((_USER, ""),), True),
    ((("system", "Be brief."), (_USER, "2 + 2?"), (_ASSISTANT, _THOUGHT), (_USER, "Why?")), True),
)
"""Conversations whose texts identify a template: (role, content) of each message, and whether the
assistant's turn is opened. They must never change.
"""
FIRST_TEXTS = "962a3d9cf72dbd912eccbce45b55007e78e41f5ecdc6a53e4eae370dc4dcac43"
FIRST_FILE = "2eefca287a0f008b170ce31bc2c4dabb398a64eb74716bf64db5d9a21da50da9"
"""Hashes of the first template's texts and of its file. Datasets and evaluations have recorded the
latter, so it remains the identity of these texts.
"""


@functools.cache
def template() -> str:
    """Returns the Jinja source."""
    return TEMPLATE_FILE.read_text(encoding="utf-8")


def export_template(system: str | None) -> str:
    """Returns the Jinja source of exported models: the same turns, with ``system`` as the default
    of conversations without a system turn.

    It also accepts content parts, missing content and ``reasoning_content``, and marks the
    assistant's text with ``{% generation %}``, a tag that plain Jinja does not know.
    """
    source = EXPORT_FILE.read_text(encoding="utf-8")
    quoted = (system or "").translate(_ESCAPES)
    return source.replace('default_system = ""', f'default_system = "{quoted}"', 1)


def template_identity(source: str) -> str:
    """Returns the identity of the texts that a Jinja template renders, in hex: two templates have
    the same one if they render the probe conversations alike, whatever their comments and spaces.
    """
    compiled = _compiled(source)
    texts = [
        compiled.render(
            messages=[{"role": role, "content": content} for role, content in turns],
            add_generation_prompt=opened,
        )
        for turns, opened in PROBES
    ]
    rendered = sha256_json(texts)
    return FIRST_FILE if rendered == FIRST_TEXTS else rendered


def render_prompt(asked: Row | Problem, prompt: Prompt) -> str:
    """Returns the text before the first token that the model writes."""
    turns = prompt.messages(asked)
    return _render(messages=turns, add_generation_prompt=True) + prompt.prefill


def render(row: Row, prompt: Prompt) -> str:
    """Returns the full training text, from the first ``<|im_start|>`` to the assistant's last
    ``<|im_end|>``.
    """
    turns = [*prompt.messages(row), {"role": "assistant", "content": row.solution.strip()}]
    text = _render(messages=turns, add_generation_prompt=False).rstrip("\n")
    assert text.endswith(END_OF_TURN)
    return text


def encode_prompt(tokenizer: Any, asked: Row | Problem, prompt: Prompt) -> list[int]:
    """Returns the token ids of ``render_prompt``, the same as the prompt's in ``encode``."""
    return token_ids(tokenizer, render_prompt(asked, prompt))


def encode(tokenizer: Any, rows: Sequence[Row], prompt: Prompt) -> list[Tokens]:
    """Encodes conversations; ``tokenizer`` is transformers' or the Rust tokenizer inside it.

    The first ``prompt_len`` tokens are ``encode_prompt``'s; the rest, from ``<think>`` to
    ``<|im_end|>``, carry the loss. The two are encoded separately, so that no token spans both, as
    in generation.
    """
    texts = []
    for row in rows:
        text, before = render(row, prompt), render_prompt(row, prompt)
        assert text.startswith(before)
        texts += [before, text[len(before) :]]
    ids = _encoded(tokenizer, texts)
    return [
        Tokens(row.id, np.array(before + rest, np.int32), len(before), len(before) + len(rest))
        for row, before, rest in zip(rows, ids[::2], ids[1::2], strict=True)
    ]


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """Returns the token ids of a text, without adding special tokens."""
    return _encoded(tokenizer, [text])[0]


def _encoded(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    rust = getattr(tokenizer, "backend_tokenizer", tokenizer)
    # The fast variant omits character offsets, which saves a fifth of the time.
    return [encoded.ids for encoded in rust.encode_batch_fast(texts, add_special_tokens=False)]


@functools.cache
def _compiled(source: str) -> Any:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # The same settings as in transformers, so that apply_chat_template renders the same text.
    return ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(source)


def _render(**context: Any) -> str:
    return _compiled(template()).render(**context)
