"""The model that wrote a dataset's problems, and its provider's terms of use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

WRITTEN_BY = "written_by"
"""Key of a dataset's manifest: the fields of its Writer."""
ANTHROPIC_TERMS = "https://www.anthropic.com/legal/commercial-terms"
HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Writer:
    """A model that wrote problems and solutions."""

    model: str
    provider: str
    terms: str | None
    """Address of the terms; None for a model in a local folder, whose terms are not known."""

    def sentence(self) -> str:
        """Returns who wrote the problems and whose terms apply, in Markdown."""
        written = f"`{self.model}` wrote the problems and their solutions ({self.provider})."
        if self.terms is None:
            return f"{written} The terms of that model apply to what it wrote."
        return f"{written} Its provider's terms apply to what it wrote: <{self.terms}>."


def from_backend(backend: str, model: str) -> Writer:
    """Returns the writer of a generation; ``backend`` is ``anthropic`` or ``local``."""
    if backend == "anthropic":
        return Writer(model, "Anthropic's Message Batches API", ANTHROPIC_TERMS)
    if Path(model).exists():
        return Writer(Path(model).name, "run by the authors of the dataset", None)
    return Writer(model, "run by the authors of the dataset", f"{HUB}/{model}")


def from_manifest(dataset: Mapping[str, Any]) -> Writer | None:
    """Returns the writer of a dataset, from its manifest; None if no model wrote it for this
    dataset. A manifest of older code has the model among its settings only.
    """
    if WRITTEN_BY in dataset:
        return Writer(**dataset[WRITTEN_BY])
    made = dataset["settings"]["source"].get("synthetic")
    return None if made is None else from_backend(made["backend"], made["model"])


def facts(backend: str, model: str) -> dict[str, Any]:
    """Returns the manifest's entry for a generated dataset."""
    return {WRITTEN_BY: asdict(from_backend(backend, model))}
