"""A hub dataset's parquet files, downloaded once at one commit."""

from __future__ import annotations

from pathlib import Path


def download(name: str, config: str | None, split: str, revision: str | None) -> tuple[list[Path], str]:
    """The local files of a dataset's config and split, and the commit that ``revision`` stands for.

    Files already in the hub's cache are not fetched again. Raises ValueError when the hub, the dataset,
    the config or the split is not there, or the files are not parquet.
    """
    from datasets import load_dataset_builder
    from httpx import HTTPError
    from huggingface_hub import HfApi, hf_hub_download

    try:
        commit = HfApi().dataset_info(name, revision=revision).sha
        assert commit is not None
        builder = load_dataset_builder(name, config, revision=commit)
        urls = list((builder.config.data_files or {}).get(split, []))
        names = [str(url).partition(f"@{commit}/")[2] for url in urls]
        paths = [Path(hf_hub_download(name, n, repo_type="dataset", revision=commit)) for n in names]
    except (OSError, ValueError, HTTPError) as e:
        raise ValueError(
            f"data.source={name} (config {config}, revision {revision}) cannot be read from the hub: "
            f"{str(e).splitlines()[0]}; on a node without internet give local files: data.source=GLOB"
        ) from e
    if not urls or any(p.suffix != ".parquet" for p in paths):
        raise ValueError(f"{name} has no parquet files for config {config} and split {split}")
    return paths, commit
