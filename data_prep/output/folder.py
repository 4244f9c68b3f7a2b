"""The paths of a recipe's dataset and of its token files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

REPORT = "report.md"
"""File in a dataset's folder: the funnel, and samples of kept and dropped rows."""
PUBLISHED = "published.json"
"""File in a dataset's folder with the name under which it was published on the hub. Not in the
manifest.
"""


def dataset_folder(config: Any) -> Path:
    """Returns the folder of the recipe's dataset."""
    return Path(config.data.dir) / config.data.name


def token_file(dataset: Path, split: str) -> Path:
    """Returns the file of encoded rows of ``split`` (train or test) in a dataset's folder."""
    return dataset / "tokens" / f"{split}.arrow"
