"""Lists the project's recipes for ``warmstart recipes``: what each one is for and what it needs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from common.errors import UserError
from trainer.recipe import load as configs

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Recipe:
    """One recipe of the list."""

    name: str
    purpose: str
    needs: str


def catalogue() -> list[Recipe]:
    """Returns every recipe; ``needs`` of one that cannot be run unchanged says why."""
    found = []
    for name in configs.recipes():
        try:
            needs = "; ".join(_needs(configs.load(name)))
        except UserError as e:
            needs = str(e)
        found.append(Recipe(name, _purpose(configs.RECIPES / f"{name}.yaml"), needs))
    return found


def _purpose(file: Path) -> str:
    """Returns the first sentence of the comment at the head of a recipe."""
    words: list[str] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#") or line.startswith("#  "):
            break
        words.append(line.lstrip("# ").rstrip())
    return " ".join(words).partition(". ")[0].rstrip(".:")


def _needs(config: DictConfig) -> Iterator[str]:
    cluster = config.cluster
    if config.device == "cpu":
        yield f"{config.train.ranks} CPU core{'' if config.train.ranks == 1 else 's'}"
    elif config.train.lora_rank or config.model.init:
        yield "1 GPU"
    else:
        yield f"{cluster.nodes} nodes of {cluster.gpus_per_node} {cluster.gpu}"
    named = (config.model.path if config.model.init is None else "", config.data.source)
    if hub := [name for name in named if _HUB_NAME.fullmatch(name)]:
        yield f"from the hub: {', '.join(hub)}"
    if config.data.source == "synthetic":
        yield "a model that writes problems"
