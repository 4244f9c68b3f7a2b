"""Protocols: settings for the prompts, sampling and grading of an evaluation, as files in
recipes/protocols/.

Each file has values of ``eval.*`` in three sections by their origin: ``stated`` with the published
figures, from the authors' ``script``, or ``unknown`` and chosen here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from common.errors import UserError
from common.text import nearest

FOLDER = Path(__file__).resolve().parents[2] / "recipes" / "protocols"


@dataclass(frozen=True)
class Protocol:
    """One protocol; each mapping is from a key of ``eval`` to its value."""

    source: str
    """Place where the figures were published."""
    stated: Mapping[str, Any]
    script: Mapping[str, Any]
    unknown: Mapping[str, Any]

    @property
    def known(self) -> dict[str, Any]:
        """The values that the authors gave."""
        return {**self.stated, **self.script}

    @property
    def values(self) -> dict[str, Any]:
        """All values."""
        return {**self.known, **self.unknown}


def names() -> list[str]:
    """Returns the names of the protocols."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read(name: str) -> Protocol:
    """Returns a protocol. Raises UserError when there is none of that name."""
    if name not in names():
        raise UserError(
            f"eval.protocol={name}: recipes/protocols/ has {', '.join(names())}"
            f"{nearest(name, names())}"
        )
    found = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml"))
    assert isinstance(found, dict)
    sections = (found.get(section) or {} for section in ("stated", "script", "unknown"))
    return Protocol(found["source"], *sections)


def follow(config: DictConfig, overrides: Sequence[str]) -> None:
    """Sets the values of ``eval.protocol``, except for keys among ``overrides``. Raises UserError
    when there is no such protocol, or it has a key that ``eval`` has not.
    """
    if config.eval.protocol is not None:
        given = {override.partition("=")[0] for override in overrides}
        name = str(config.eval.protocol)
        for key, value in read(name).values.items():
            if key not in config.eval:
                raise UserError(
                    f"recipes/protocols/{name}.yaml: eval has no key {key!r}"
                    f"{nearest(key, map(str, config.eval))}"
                )
            if f"eval.{key}" not in given:
                OmegaConf.update(config, f"eval.{key}", value, merge=False)
