"""Uploads an export to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from common.files import verify
from common.hub_upload import MODEL, check, upload


def push(folder: Path, repo: str) -> str:
    """Uploads an export with its model card; returns the repository's URL.

    Raises as ``common.hub_upload.upload`` does, and UserError when a file of the export is damaged.
    """
    check(repo)
    verify(folder)
    return upload(folder, repo, MODEL, f"Add {folder.name}")
