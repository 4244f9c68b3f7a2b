"""Builds the random Qwen3 base model of a recipe with ``model.init``, once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from common.errors import UserError
from common.files import MANIFEST, read_json, sha256_file, whole_folder, write_json, write_lock
from data_prep.tokenizer import tokenizers

VOCABULARY_MULTIPLE = 128
"""The number of embedding rows is rounded up to a multiple of this, as in Qwen's own models."""
IDENTITY = "identity"
"""Key of the manifest under which a random model's shape, seed and tokenizer are recorded."""


def materialise(config: DictConfig) -> None:
    """Builds the random base model at ``model.path`` if the recipe has ``model.init`` and it is not
    built yet.

    Raises UserError when the folder holds another model, or transformers refuses the shape.
    """
    if config.model.init is None:
        return
    folder, tokenizer = Path(config.model.path), Path(config.verl.model.tokenizer_path)
    init, seed = dict(config.model.init), config.model.init_seed
    identity = {"init": init, "seed": seed, "tokenizer": sha256_file(tokenizer / "tokenizer.json")}
    with write_lock(folder.with_name(f".{folder.name}.lock")):
        if folder.exists():
            if not is_random(folder) or read_json(folder / MANIFEST)[IDENTITY] != identity:
                raise UserError(
                    f"{folder} holds another model than model.init describes: delete it, or set "
                    "model.path"
                )
            return
        _build(folder, init, seed, tokenizer, identity)


def is_random(folder: Path) -> bool:
    """Returns whether ``materialise`` built the model in ``folder``."""
    manifest = folder / MANIFEST
    return manifest.exists() and IDENTITY in read_json(manifest)


def _build(
    folder: Path, init: dict[str, Any], seed: int, tokenizer: Path, identity: dict[str, Any]
) -> None:
    import torch
    from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    words = tokenizers.load(tokenizer)
    ends = tokenizers.end_tokens(words)
    size = -(-len(words) // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
    torch.manual_seed(seed)
    try:
        model = Qwen3ForCausalLM(
            Qwen3Config(vocab_size=size, eos_token_id=ends[0], pad_token_id=ends[1], **init)
        )
    except (TypeError, ValueError) as e:
        raise UserError(f"model.init: transformers refuses this shape ({e})") from e
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=ends[1])
    with whole_folder(folder) as partial:
        model.save_pretrained(partial)
        words.save_pretrained(str(partial))
        write_json(partial / MANIFEST, {IDENTITY: identity})
