"""Overrides whose value is a text that may have braces, backslashes or quotes, taken verbatim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from omegaconf import DictConfig, OmegaConf

TEXTS = (
    *("data.prompt", "data.system", "eval.prompt", "eval.system", "eval.prefill"),
    "train.on_alarm",
)


def split(overrides: Sequence[str]) -> tuple[dict[str, str | None], list[str]]:
    """Returns the overrides of ``TEXTS``, key -> text (None for ``null``), and the others."""
    texts: dict[str, str | None] = {}
    others = []
    for override in overrides:
        key, _, value = override.partition("=")
        if key in TEXTS:
            texts[key] = None if value == "null" else value
        else:
            others.append(override)
    return texts, others


def put(config: DictConfig, texts: Mapping[str, str | None]) -> None:
    """Sets the texts in a configuration."""
    for key, value in texts.items():
        OmegaConf.update(config, key, value)
