"""Sources of records: a hub dataset, local parquet or JSONL files, generated sums, or problems
written by a model.
"""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import file_errors, sha256_file
from common.progress import progress
from common.text import from_here, nearest
from data_prep.source.shards import Unit, cut
from data_prep.synth.generation import Backend, Generation

SUFFIXES = (".parquet", ".jsonl")
GENERATED = ("arithmetic", "synthetic")
"""Sources that are not files."""


@dataclass(frozen=True)
class Source:
    """A recipe's ``data.source`` with the settings that select its records."""

    name: str
    hub_config: str | None = None
    revision: str | None = None
    split: str = "train"
    generator: dict[str, int] | None = None
    """Settings of the source ``arithmetic``."""
    generation: Generation | None = None
    """Settings of the source ``synthetic``."""
    backend: Backend | None = None
    """Answers the generation's remaining requests."""

    def open(self) -> tuple[list[Unit], dict[str, Any]]:
        """Returns the units and the identity of the records: file hashes, hub commit, or generator
        settings.

        A synthetic source is generated first. Raises UserError when a glob matches nothing, a file
        is of another kind, empty or damaged, or the hub is unreachable; and whatever
        ``Generation.complete`` raises.
        """
        if self.name == "arithmetic":
            assert self.generator is not None
            unit = Unit(None, generator=self.generator, rows=self.generator["problems"])
            return [unit], {"generator": self.generator}
        if self.name == "synthetic":
            assert self.generation is not None and self.backend is not None
            path = self.generation.complete(self.backend).absolute()
            identity = {
                "synthetic": self.generation.identity(),
                "files": [[path.name, sha256_file(path)]],
            }
            return cut(path), identity
        hub = (
            {"hub": self.name, "config": self.hub_config, "split": self.split}
            if self.is_hub
            else {}
        )
        if hub:
            from data_prep.source.hub import download

            paths, hub["revision"] = download(self.name, self.hub_config, self.split, self.revision)
        else:
            paths = matches(self.name)
        units, hashes = [], []
        with progress("MB hashed", sum(p.stat().st_size for p in paths), scale=10**6) as advance:
            for path in paths:
                with file_errors(path):
                    units += cut(path)
                    hashes.append([path.name, sha256_file(path)])
                advance(path.stat().st_size)
        return units, hub | {"files": sorted(hashes)}

    def holds(self, recorded: dict[str, Any]) -> bool:
        """Returns whether ``recorded``, an identity from an earlier ``open``, is this source's,
        without asking the hub or a model. A recipe without a revision accepts the recorded one.
        False for local files and arithmetic.
        """
        if self.generation is not None:
            return recorded.get("synthetic") == self.generation.identity()
        named = {"hub": self.name, "config": self.hub_config, "split": self.split}
        same = all(recorded.get(key) == value for key, value in named.items())
        return same and self.revision in (None, recorded["revision"])

    @property
    def is_hub(self) -> bool:
        """Whether ``name`` is a hub dataset: neither a generator nor a local file or glob."""
        path = Path(self.name)
        local = (
            self.name in GENERATED
            or glob.has_magic(self.name)
            or path.suffix in SUFFIXES
            or path.exists()
        )
        return not local


def matches(pattern: str) -> list[Path]:
    """Returns the files of a glob, sorted. Raises UserError when there is none, or one of another
    kind.
    """
    paths = sorted(Path(p).absolute() for p in glob.glob(pattern, recursive=True))
    if not paths:
        there = [str(path) for path in Path(pattern).parent.glob("*") if path.suffix in SUFFIXES]
        raise UserError(
            f"data.source={pattern} matches no file{from_here(pattern)}{nearest(pattern, there)}"
        )
    for path in paths:
        if path.suffix not in SUFFIXES or not path.is_file():
            raise UserError(
                f"{path}: data.source takes {' and '.join(SUFFIXES)} files: name them "
                "with a pattern (*.jsonl)"
            )
    return paths
