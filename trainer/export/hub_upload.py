"""Uploads a folder to the Hugging Face hub, as a model or a dataset.

The token is read only from the environment and sent only to the hub.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from common.errors import StageFailed, UserError, first_line

TOKEN = "HF_TOKEN"
CARD = "README.md"
MODEL, DATASET = "model", "dataset"
"""Kinds of repository."""
LICENCE_KEY = {MODEL: "model.license", DATASET: "data.license"}
"""Kind -> the recipe's key with the licence of what is uploaded."""


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


def upload(folder: Path, patterns: Sequence[str], repo: str, kind: str, message: str) -> str:
    """Uploads the files of ``folder`` that match a pattern as one commit; returns the repository's
    URL. README.md should be one of them: it is the card.

    A missing repository is created as private. An existing one keeps its visibility, and its files
    that the folder does not have. Raises UserError as ``check`` does, and when the hub refuses the
    card's metadata; StageFailed when the hub cannot be reached or refuses the upload.
    """
    from httpx import HTTPError
    from huggingface_hub import HfApi

    check(repo)
    api = HfApi(token=os.environ[TOKEN])
    try:
        url = api.create_repo(repo, private=True, exist_ok=True, repo_type=kind)
        api.upload_folder(
            repo_id=repo,
            repo_type=kind,
            folder_path=folder,
            allow_patterns=list(patterns),
            commit_message=message,
        )
    except (OSError, HTTPError, RuntimeError) as e:  # the last one is hf_xet's
        raise StageFailed(
            f"{folder} could not be pushed to {repo}: {first_line(e)}; run the command again"
        ) from e
    except ValueError as e:
        if "Invalid metadata" not in str(e):
            raise
        raise UserError(
            f"the hub refuses {folder / CARD}: {' '.join(str(e).split())} "
            f"({LICENCE_KEY[kind]} in the recipe is its licence)"
        ) from e
    return str(url)
