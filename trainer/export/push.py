"""An export on the Hugging Face hub.

The token comes from the environment alone and goes nowhere but into requests to the hub.
"""

from __future__ import annotations

import os
from pathlib import Path

from common.errors import StageFailed, UserError, first_line
from common.files import verify

TOKEN = "HF_TOKEN"


def check(repo: str) -> None:
    """Raises UserError when there is no token, or ``repo`` is not an owner and a name that the hub takes."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as e:
        raise UserError(f"--push {repo}: {first_line(e)}") from e
    if repo.count("/") != 1:
        raise UserError(f"--push {repo}: give the owner too, as OWNER/{repo}")
    if not os.environ.get(TOKEN):
        raise UserError(f"{TOKEN} is not set: pushing needs a token with write access, from the hub's settings page")


def push(folder: Path, repo: str) -> str:
    """Uploads an export, its card included, as one commit; returns the repository's address.

    A repository that is not there is made, private; one that is there keeps its visibility, and files that the
    export does not have. Raises UserError when a file of the export is damaged or as ``check`` does, StageFailed
    when the hub cannot be reached or refuses.
    """
    from httpx import HTTPError
    from huggingface_hub import HfApi

    check(repo)
    verify(folder)
    api = HfApi(token=os.environ[TOKEN])
    try:
        url = api.create_repo(repo, private=True, exist_ok=True)
        # Names with a dot in front are files that somebody is writing.
        api.upload_folder(repo_id=repo, folder_path=folder, ignore_patterns=".*", commit_message=f"Add {folder.name}")
    except (OSError, HTTPError, RuntimeError) as e:  # the last one is hf_xet's
        raise StageFailed(f"{folder} could not be pushed to {repo}: {first_line(e)}; run the command again") from e
    return str(url)
