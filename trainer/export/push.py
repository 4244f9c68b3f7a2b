"""Uploads an export to the Hugging Face hub.

The token is read from the environment only and sent to nothing but the hub.
"""

from __future__ import annotations

import os
from pathlib import Path

from common.errors import StageFailed, UserError, first_line
from common.files import verify

TOKEN = "HF_TOKEN"


def check(repo: str) -> None:
    """Raises UserError when there is no token, or ``repo`` is not a valid OWNER/NAME on the hub."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as e:
        raise UserError(f"--push {repo}: {first_line(e)}") from e
    if repo.count("/") != 1:
        raise UserError(f"--push {repo}: give the owner too, as OWNER/{repo}")
    if not os.environ.get(TOKEN):
        raise UserError(
            f"{TOKEN} is not set: pushing needs a token with write access, from the hub's settings "
            "page"
        )


def push(folder: Path, repo: str) -> str:
    """Uploads an export with its model card as one commit; returns the repository's URL.

    A missing repository is created as private; an existing one keeps its visibility, and the files
    that the export does not have. Raises UserError as ``check`` does, when a file of the export is
    damaged, or when the hub refuses the model card's metadata; StageFailed when the hub cannot be
    reached or refuses the upload.
    """
    from httpx import HTTPError
    from huggingface_hub import HfApi

    check(repo)
    verify(folder)
    api = HfApi(token=os.environ[TOKEN])
    try:
        url = api.create_repo(repo, private=True, exist_ok=True)
        # Names that start with a dot are files still being written.
        api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            ignore_patterns=".*",
            commit_message=f"Add {folder.name}",
        )
    except (OSError, HTTPError, RuntimeError) as e:  # the last one is hf_xet's
        raise StageFailed(
            f"{folder} could not be pushed to {repo}: {first_line(e)}; run the command again"
        ) from e
    except ValueError as e:
        if "Invalid metadata" not in str(e):
            raise
        raise UserError(
            f"the hub refuses {folder / 'README.md'}: {' '.join(str(e).split())} (model.license in "
            "the recipe is its licence)"
        ) from e
    return str(url)
