"""The dataset of a run as its cards describe it: facts that are computed from its rows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from common.files import MANIFEST, read_json, sha256_file
from data_prep.answers.normalise import normalise
from data_prep.output.folder import PUBLISHED, dataset_folder
from data_prep.output.write import HELD_OUT, ROWS
from data_prep.synth import writer
from data_prep.synth.writer import Writer

_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:/[0-9]+)?")
_WHOLE = re.compile(r"-?[0-9]+")


@dataclass(frozen=True)
class TrainingData:
    """A dataset's folder and its manifest."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def rows(self) -> int:
        """The number of training rows."""
        return self.manifest["rows"]["train"]

    @property
    def source(self) -> dict[str, Any]:
        """The identity of the source records, as the manifest has it."""
        return self.manifest["settings"]["source"]

    @property
    def writer(self) -> Writer | None:
        """The model that wrote the problems; None if no model wrote them for this dataset."""
        return writer.from_manifest(self.manifest)

    @property
    def hub_names(self) -> list[str]:
        """Names on the hub: the dataset that the records came from, and the one that this dataset
        was published as.
        """
        published = self.folder / PUBLISHED
        names = [self.source.get("hub")]
        names += [read_json(published)["repo"]] if published.exists() else []
        return [name for name in names if name]

    @property
    def held_out(self) -> str:
        """Hash of the file with the held-out problems."""
        return self.manifest["files"][HELD_OUT]

    @cached_property
    def answers(self) -> list[str]:
        """The training rows' answers in canonical spelling."""
        import pyarrow.parquet as pq

        columns = pq.read_table(self.folder / ROWS, columns=["answer", "split"]).to_pydict()
        pairs = zip(columns["answer"], columns["split"], strict=True)
        return [normalise(answer) for answer, split in pairs if split == "train"]

    @property
    def has_negative_answers(self) -> bool:
        """Whether the answer of a training row is a negative number."""
        return any(answer[0] == "-" for answer in self.answers if _NUMBER.fullmatch(answer))

    @property
    def has_only_whole_answers(self) -> bool:
        """Whether the answer of every training row is a whole number."""
        return all(map(_WHOLE.fullmatch, self.answers))

    def example(self) -> dict[str, Any]:
        """Returns the row with the shortest problem among the held-out rows, or among the first
        training rows if none are held out.
        """
        import pyarrow.parquet as pq

        split = "test" if self.manifest["rows"]["test"] else "train"
        file = pq.ParquetFile(self.folder / ROWS)
        column = file.schema_arrow.get_field_index("split")
        found: list[dict[str, Any]] = []
        for group in range(file.num_row_groups):
            known = file.metadata.row_group(group).column(column).statistics
            # A row group has rows of one split, so the others need not be read.
            if known is None or known.min <= split <= known.max:
                rows = file.read_row_group(group).to_pylist()
                found += [row for row in rows if row["split"] == split]
            if split == "train" and found:
                break
        return min(found, key=lambda row: (len(row["problem"]), row["id"]))


def read(config: DictConfig, expected: str) -> TrainingData | None:
    """Returns the dataset of a recipe; None if it is missing or incomplete, or if its hash is not
    ``expected``, because it is then not the build that the model was trained on.
    """
    folder = dataset_folder(config)
    manifest = folder / MANIFEST
    known = manifest.exists() and (folder / ROWS).exists() and sha256_file(manifest) == expected
    return TrainingData(folder, read_json(manifest)) if known else None
