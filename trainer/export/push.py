"""Uploads an export to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from common.files import MANIFEST, read_json, verify
from trainer.export.hub_upload import CARD, MODEL, check, upload
from trainer.run.folder import LOSS_PICTURE
from trainer.run.rl_start import REWARD_PICTURE


def push(folder: Path, repo: str) -> str:
    """Uploads an export with its model card, and no other file of its folder; returns the
    repository's URL.

    Raises as ``hub_upload.upload`` does, and UserError when a file of the export is damaged.
    """
    check(repo)
    verify(folder)
    own = [*read_json(folder / MANIFEST)["files"], MANIFEST, CARD, LOSS_PICTURE, REWARD_PICTURE]
    return upload(folder, own, repo, MODEL, f"Add {folder.name}")
