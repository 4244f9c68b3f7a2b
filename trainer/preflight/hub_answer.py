"""Asks the Hugging Face hub once, within seconds, whether a repository exists. The hub's own
download functions retry for minutes.
"""

from __future__ import annotations

from pathlib import Path

from common.errors import UserError, first_line
from trainer.export.hub_upload import DATASET, MODEL

ANSWER_SECONDS = 5
"""Seconds to wait for one answer."""
CONFIG = "config.json"


def check(name: str, revision: str | None, kind: str) -> None:
    """Raises UserError unless the hub has OWNER/NAME (a model with a config.json, or a dataset) at
    ``revision``; also when the hub cannot be reached, and when HF_HUB_OFFLINE is set. Makes one
    request.
    """
    from httpx import HTTPError
    from huggingface_hub import HfApi, constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    at = f" at revision {revision}" if revision else ""
    if constants.HF_HUB_OFFLINE:
        raise UserError(
            f"{at} is not in the hub's cache ({constants.HF_HUB_CACHE}), and HF_HUB_OFFLINE is "
            f"set: {_fetch(name, kind)} on a machine with internet, or unset it"
        )
    try:
        if kind == MODEL:
            get_hf_file_metadata(
                hf_hub_url(name, CONFIG, revision=revision), timeout=ANSWER_SECONDS, token=None
            )
        else:
            HfApi().dataset_info(name, revision=revision, timeout=ANSWER_SECONDS)
    except HFValidationError as e:
        raise UserError(" is not a name on the hub: write OWNER/NAME") from e
    except GatedRepoError as e:
        raise UserError(
            " is a gated repository: accept its terms on its page on the hub, and set HF_TOKEN"
        ) from e
    except RepositoryNotFoundError as e:
        raise UserError(
            f" is not a {kind} on the hub: correct the name, or set HF_TOKEN if it is private"
        ) from e
    except RevisionNotFoundError as e:
        raise UserError(f" has no revision {revision} on the hub") from e
    except EntryNotFoundError as e:
        raise UserError(f" is not a model: it has no {CONFIG} on the hub") from e
    except (HTTPError, OSError) as e:
        said = (
            f"answers {e.response.status_code}"
            if isinstance(e, HfHubHTTPError)
            else f"cannot be reached ({first_line(e)})"
        )
        raise UserError(
            f"{at} is not on this machine, and the hub ({constants.ENDPOINT}) {said}: try again, "
            f"or {_fetch(name, kind)} on a machine with internet"
        ) from e


def cached_model(name: str, revision: str | None) -> Path | None:
    """Returns the folder of a model in the hub's cache; None unless it has configuration and
    weights. Makes no request.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
    except (OSError, ValueError):
        return None
    whole = (folder / CONFIG).exists() and any(folder.glob("*.safetensors"))
    return folder if whole else None


def config_file(name: str, revision: str | None) -> Path | None:
    """Returns the configuration file of a model on the hub, from the cache or the hub; None if
    neither has it.
    """
    from httpx import HTTPError
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, CONFIG, revision=revision, etag_timeout=ANSWER_SECONDS))
    except (OSError, ValueError, HTTPError):
        return None


def _fetch(name: str, kind: str) -> str:
    return f"hf download {name}" + (" --repo-type dataset" if kind == DATASET else "")
