"""Identity of the dataset and base model of a run, which may not change between attempts."""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path

from omegaconf import DictConfig

from common.differences import differences
from common.errors import UserError, first_line
from common.files import MANIFEST, sha256_file
from data_prep.output.folder import dataset_folder

SAMPLE_BYTES = 2**20
"""Bytes hashed at the end of a weights file: enough to tell models of one shape apart without
reading it all.
"""
ITS_PLACE = "data.dir=FOLDER (and data.name=NAME if it was renamed)"
"""Overrides for a dataset that was moved."""
CONFIG_AND_WEIGHTS = ("config.json", "*.safetensors", "*.safetensors.index.json")


def dataset_identity(config: DictConfig) -> str:
    """Returns the hash of the dataset's manifest. Raises UserError when the dataset does
    not exist.
    """
    manifest = dataset_folder(config) / MANIFEST
    if not manifest.exists():
        raise UserError(
            f"there is no dataset in {manifest.parent}: warmstart data {config.name} builds it; if "
            f"it was moved, add {ITS_PLACE}"
        )
    return sha256_file(manifest)


def tokenizer_folder(config: DictConfig) -> Path:
    """Returns the folder of the dataset's tokenizer. Raises UserError when it does not exist."""
    folder = Path(config.verl.model.tokenizer_path)
    if not (folder / "tokenizer.json").exists():
        raise UserError(
            f"{folder} has no tokenizer: warmstart data {config.name} builds it with the dataset; "
            f"if that was moved, add {ITS_PLACE}"
        )
    return folder


def model_identity(path: str, revision: str | None) -> dict[str, str]:
    """Returns the hash of config.json, and for each weights file its size and the hash of its
    header and last MiB.

    A hub model is taken from the cache, or fetched first. Raises UserError when the model does not
    exist or has no safetensors.
    """
    folder = model_folder(path, revision)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights or not (folder / "config.json").exists():
        raise UserError(
            f"model.path={path} is not a model: {folder} needs config.json and safetensors files"
        )
    return {
        "model/config.json": sha256_file(folder / "config.json"),
        **{f"model/{file.name}": _weights_identity(file) for file in weights},
    }


def model_folder(path: str, revision: str | None) -> Path:
    """Returns the folder with config.json and weights: ``path``, or the hub's cache, fetched first
    if needed.

    Raises UserError when the hub has no such model.
    """
    return Path(path) if Path(path).is_dir() else _fetched(path, revision)


def check_same(saved: dict[str, str], here: dict[str, str], checkpoint: Path) -> None:
    """Raises UserError naming each difference between the identity ``saved`` in ``checkpoint`` and
    the current one, ``here``.
    """
    if changed := differences(saved, here):
        what = {"dataset": "another build of the dataset", "model": "another base model"}
        kinds = " and ".join(dict.fromkeys(what[name.partition("/")[0]] for name in changed))
        raise UserError(
            f"{checkpoint} was trained on {kinds}:\n  "
            + "\n  ".join(changed.values())
            + "\nrestore what it was trained on, or name a new run with run.name=NAME"
        )


def _weights_identity(file: Path) -> str:
    """Returns size and hash; a safetensors file begins with its header's length in eight bytes,
    little endian.
    """
    with file.open("rb") as f:
        begin = f.read(8)
        if len(begin) < 8:
            raise UserError(f"{file} is not a safetensors file: download the model again")
        header = f.read(struct.unpack("<Q", begin)[0])
        size = f.seek(0, os.SEEK_END)
        f.seek(max(0, size - SAMPLE_BYTES))
        return f"{size} bytes, sha256 {hashlib.sha256(header + f.read()).hexdigest()}"


def _fetched(name: str, revision: str | None) -> Path:
    from httpx import HTTPError
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(name, revision=revision, allow_patterns=list(CONFIG_AND_WEIGHTS))
        )
    except (OSError, ValueError, HTTPError) as e:
        raise UserError(
            f"model.path={name} is neither a folder nor a model on the hub: "
            f"{first_line(e)}; for a node without internet, download it first (hf download {name})"
        ) from e
