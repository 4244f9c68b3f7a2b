"""Makes an export readable by transformers 4 and 5, and by programs built on either.

transformers 5 writes the settings of RoPE only under ``rope_parameters``. Version 4 does not read
that key and silently uses its default theta. It also does not know the class name that version 5
gives to a tokenizer that consists of a tokenizer.json.
"""

from __future__ import annotations

from pathlib import Path

from common.files import read_json, write_json

TOKENIZER_CLASS = "PreTrainedTokenizerFast"
"""The class that reads tokenizer.json unchanged in both versions."""


def widen(folder: Path) -> None:
    """Rewrites config.json and tokenizer_config.json of ``folder``, which transformers 5 wrote."""
    config = read_json(folder / "config.json")
    rope = dict(config["rope_parameters"])
    config["rope_theta"] = rope.pop("rope_theta")
    if rope != {"rope_type": "default"}:
        config["rope_scaling"] = rope
    write_json(folder / "config.json", config)
    tokenizer = read_json(folder / "tokenizer_config.json")
    write_json(folder / "tokenizer_config.json", tokenizer | {"tokenizer_class": TOKENIZER_CLASS})
