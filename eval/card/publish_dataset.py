"""Uploads a dataset with its card to the hub."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from omegaconf import DictConfig

from common.files import MANIFEST, file_errors, read_json, verify, write_json
from data_prep.output.folder import PUBLISHED, dataset_folder
from eval.card.dataset_card import stage
from eval.card.training_data import TrainingData
from trainer.export.hub_upload import DATASET, check, upload


def publish(config: DictConfig, repo: str) -> str:
    """Uploads the rows of a recipe's dataset, which must be built, and its card; returns the
    repository's URL. The dataset's folder records the repository's name for the cards of models
    trained on it.

    Raises as ``trainer.export.hub_upload.upload`` does, and UserError when a file of the dataset is
    damaged.
    """
    check(repo)
    folder = dataset_folder(config)
    verify(folder)
    data = TrainingData(folder, read_json(folder / MANIFEST))
    with file_errors(folder.parent):
        # Beside the dataset, because a temporary folder of the system may be too small.
        with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-push-") as target:
            stage(data, config, repo, Path(target))
            url = upload(Path(target), ["*"], repo, DATASET, f"Add the dataset {folder.name}")
        write_json(folder / PUBLISHED, {"repo": repo})
    return url
