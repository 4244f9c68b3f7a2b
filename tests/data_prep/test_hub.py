"""The data stage and the hub: asked once, not at all for what is there, and its faults."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common.errors import UserError
from data_prep.build import build
from data_prep.source import arithmetic, hub
from data_prep.source.source import Source
from tests.data_prep.test_build import SETTINGS


def test_an_unreachable_hub_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be read from the hub.*data\.source=PATTERN"):
        build(tmp_path / "d", replace(SETTINGS, source=Source("some/dataset")))


def test_a_finished_dataset_asks_the_hub_for_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path, commit, asked = tmp_path / "rows.parquet", "a" * 40, []
    pq.write_table(
        pa.Table.from_pylist(list(arithmetic.records(problems=60, digits=2, seed=1))), path
    )

    def download(*source: Any) -> tuple[list[Path], str]:
        asked.append(source)
        return [path], commit

    monkeypatch.setattr(hub, "download", download)
    settings = replace(SETTINGS, source=Source("some/dataset", "default"))
    assert build(tmp_path / "d", settings) and len(asked) == 1
    assert not build(tmp_path / "d", settings)
    assert not build(
        tmp_path / "d", replace(settings, source=Source("some/dataset", "default", commit))
    )
    assert len(asked) == 1
    for other in (Source("some/dataset", "all"), Source("other/dataset", "default")):
        with pytest.raises(UserError, match="built with other settings"):
            build(tmp_path / "d", replace(settings, source=other))


def test_a_commit_in_the_cache_needs_no_hub(tmp_path: Path, monkeypatch: Any) -> None:
    import datasets
    import huggingface_hub

    commit, asked = "b" * 40, []
    url = f"hf://datasets/some/dataset@{commit}/data/train-0.parquet"
    cached = tmp_path / f"datasets--some--dataset/snapshots/{commit}/data/train-0.parquet"
    cached.parent.mkdir(parents=True)
    cached.touch()

    def builder(*source: Any, **more: Any) -> Any:
        asked.append(source)
        return SimpleNamespace(config=SimpleNamespace(data_files={"train": [url]}))

    monkeypatch.setattr(datasets, "load_dataset_builder", builder)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assets = partial(huggingface_hub.cached_assets_path, assets_dir=tmp_path / "assets")
    monkeypatch.setattr(huggingface_hub, "cached_assets_path", assets)
    for _ in range(2):
        assert hub.download("some/dataset", "default", "train", commit) == ([cached], commit)
    assert len(asked) == 1
    with pytest.raises(UserError, match="no parquet or JSONL files for config default and"):
        hub.download("some/dataset", "default", "test", commit)
