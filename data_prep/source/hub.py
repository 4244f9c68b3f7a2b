"""Downloads a hub dataset's parquet or JSONL files, once per commit."""

from __future__ import annotations

import re
from pathlib import Path

from common.errors import UserError, first_line
from common.files import read_json, write_json


def download(
    name: str, config: str | None, split: str, revision: str | None
) -> tuple[list[Path], str]:
    """Returns the local files of a dataset's config and split, and the commit that ``revision``
    resolves to.

    Cached files are not requested again, so a full commit whose files were fetched before needs no
    network. Raises UserError when the hub is unreachable, the dataset, config or split does not
    exist, or the files are neither parquet nor JSONL.
    """
    from httpx import HTTPError
    from huggingface_hub import HfApi, cached_assets_path, hf_hub_download

    try:
        pinned = revision if re.fullmatch("[0-9a-f]{40}", revision or "") else None
        commit = pinned or HfApi().dataset_info(name, revision=revision).sha
        assert commit is not None
        listing = cached_assets_path("warmstart", name, commit) / f"{config}-{split}.json"
        if not listing.exists():
            write_json(listing, _files(name, config, split, commit))
        names = read_json(listing)
        return [
            Path(hf_hub_download(name, n, repo_type="dataset", revision=commit)) for n in names
        ], commit
    except (OSError, ValueError, HTTPError) as e:
        raise UserError(
            f"data.source={name} (config {config}, revision {revision}) cannot be read from the "
            f"hub: {first_line(e)}; on a node without internet use local files "
            "(data.source=PATTERN), or the full commit of files that were downloaded before "
            "(data.revision=COMMIT)"
        ) from e


def _files(name: str, config: str | None, split: str, commit: str) -> list[str]:
    """Returns the split's file names in the repository. Raises ValueError when it has none or they
    are neither parquet nor JSONL.
    """
    from datasets import load_dataset_builder

    builder = load_dataset_builder(name, config, revision=commit)
    urls = list((builder.config.data_files or {}).get(split, []))
    names = [str(url).partition(f"@{commit}/")[2] for url in urls]
    if not names or not all(n.endswith((".parquet", ".jsonl")) for n in names):
        raise ValueError(f"no parquet or JSONL files for config {config} and split {split}")
    return names
