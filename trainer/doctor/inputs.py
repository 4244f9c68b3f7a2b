"""Checks that model, dataset and benchmarks are on this machine and intact.

Sends no request to the hub, because compute nodes cannot reach it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig

from common.errors import UserError
from common.files import MANIFEST, damaged, read_json, sha256_file
from data_prep.benchmarks import sets as benchmarks
from data_prep.benchmarks.known import BENCHMARKS
from data_prep.output.folder import dataset_folder
from trainer.doctor import vocabulary
from trainer.doctor.findings import FATAL, OK, WARNING, Finding
from trainer.run.trained_from import CONFIG_AND_WEIGHTS, dataset_identity, model_identity

INDEX = "model.safetensors.index.json"


def check(config: DictConfig, thorough: bool) -> Iterator[Finding]:
    """Yields findings on all three; ``thorough`` verifies every file's hash, otherwise presence is
    enough.
    """
    yield _model(config, thorough)
    yield _dataset(config, thorough)
    yield from _benchmarks(config, thorough)


def identity(config: DictConfig) -> dict[str, str]:
    """Returns the hashes of this node's model and dataset, if they exist, to compare with other
    nodes.
    """
    found: dict[str, str] = {}
    if (dataset_folder(config) / MANIFEST).exists():
        found["dataset"] = dataset_identity(config)
    folder = _model_folder(config)
    if isinstance(folder, Path):
        found |= model_identity(str(folder), None)
    return found


def _model(config: DictConfig, thorough: bool) -> Finding:
    path, fetch = config.model.path, f"warmstart prefetch {config.name}"
    if config.model.init is not None and not Path(path).exists():
        return Finding(OK, "model", f"{path} is initialised at random when training starts")
    folder = _model_folder(config)
    if isinstance(folder, str):
        return Finding(FATAL, "model", folder, fetch)
    local = folder == Path(path)
    fix = f"restore the model's files in {path}, or set model.path" if local else fetch
    try:
        model_identity(str(folder), None)
    except UserError as e:
        return Finding(FATAL, "model", str(e), fix)
    if missing := _missing_shards(folder):
        return Finding(
            FATAL, "model", f"{folder} lacks {', '.join(missing)}, which {INDEX} names", fix
        )
    if thorough and (bad := _damaged(folder)):
        remove = (
            "" if local else f"rm {' '.join(str((folder / name).resolve()) for name in bad)} && "
        )
        return Finding(
            FATAL,
            "model",
            f"{folder}: recorded hashes do not match: {', '.join(bad)}",
            remove + fix,
        )
    try:
        vocabulary.check(config)
    except UserError as e:
        cause, _, fix = str(e).rpartition(": ")
        return Finding(FATAL, "model", cause, fix)
    commit = "" if local else f" at commit {folder.name}"
    if not local and config.model.revision != folder.name:
        return Finding(
            WARNING,
            "model",
            f"{path} is present{commit}, but not pinned",
            f"model.revision={folder.name}",
        )
    return Finding(OK, "model", f"{path} is present{commit}")


def _model_folder(config: DictConfig) -> Path | str:
    """Returns the folder of the model's files, or the reason why there is no folder."""
    path, revision = config.model.path, config.model.revision
    if Path(path).is_dir():
        return Path(path)
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE

    try:
        return Path(
            snapshot_download(
                path,
                revision=revision,
                allow_patterns=list(CONFIG_AND_WEIGHTS),
                local_files_only=True,
            )
        )
    except (OSError, ValueError):
        at = f" at revision {revision}" if revision else ""
        return f"{path}{at} is neither a folder nor in the hub's cache ({HF_HUB_CACHE})"


def _missing_shards(folder: Path) -> list[str]:
    if not (folder / INDEX).exists():
        return []
    names = sorted(set(read_json(folder / INDEX)["weight_map"].values()))
    return [name for name in names if not (folder / name).exists()]


def _damaged(folder: Path) -> list[str]:
    """Returns the files whose hash differs from the folder's manifest or from their name in the
    hub's cache.
    """
    if (folder / MANIFEST).exists() and "files" in read_json(folder / MANIFEST):
        return damaged(folder)
    return [
        str(p.relative_to(folder))
        for p in sorted(folder.rglob("*"))
        if p.is_symlink() and not _as_named(p)
    ]


def _as_named(file: Path) -> bool:
    """Returns whether a file has the hash in its cached name: its SHA-256, or git's SHA-1 if git
    stores the file.
    """
    blob = file.resolve()
    if re.fullmatch("[0-9a-f]{64}", blob.name):
        return blob.is_file() and sha256_file(blob) == blob.name
    if re.fullmatch("[0-9a-f]{40}", blob.name):
        content = blob.read_bytes() if blob.is_file() else b""
        return (
            hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
            == blob.name
        )
    return blob.is_file()


def _dataset(config: DictConfig, thorough: bool) -> Finding:
    folder, build = dataset_folder(config), f"warmstart data {config.name}"
    if not (folder / MANIFEST).exists():
        return Finding(FATAL, "dataset", f"{folder} is not built", build)
    try:
        bad = damaged(folder) if thorough else []
    except UserError as e:
        return Finding(FATAL, "dataset", str(e), build)
    if bad:
        return Finding(
            FATAL,
            "dataset",
            f"{folder}: missing or damaged: {', '.join(bad)}",
            f"rm -r {folder} && {build}",
        )
    rows = read_json(folder / MANIFEST)["rows"]
    return Finding(
        OK,
        "dataset",
        f"{folder}: {', '.join(f'{count:,} {split} rows' for split, count in rows.items())}",
    )


def _benchmarks(config: DictConfig, thorough: bool) -> Iterator[Finding]:
    folder, sets = Path(config.eval.benchmarks), benchmarks.expand(config.eval.sets)
    own = folder == dataset_folder(config)
    if own and not (folder / MANIFEST).exists():
        return  # the finding on the dataset reports it
    if not (dataset_folder(config) / MANIFEST).exists():
        sets += [name for name in config.data.decontaminate if name not in sets]
    fetch = f"warmstart prefetch {config.name}"
    try:
        problems = benchmarks.load(folder, sets, None)
        bad = damaged(folder) if thorough and not own and (folder / MANIFEST).exists() else []
    except UserError as e:
        known = set(sets) <= BENCHMARKS.keys()
        yield Finding(
            FATAL, "benchmarks", str(e), fetch if known else "eval.benchmarks=DIR or eval.sets=[..]"
        )
        return
    if bad:
        files = " ".join(str(folder / name) for name in bad)
        yield Finding(
            FATAL,
            "benchmarks",
            f"{folder}: missing or damaged: {', '.join(bad)}",
            f"rm {files}; {fetch}",
        )
        return
    yield Finding(OK, "benchmarks", f"{folder}: {len(problems):,} problems of {', '.join(sets)}")
