"""One short training run of the tiny recipe on two ranks, with every view of it switched on."""

from pathlib import Path

import pytest

from tests.conftest import warmstart

STEPS = 20
RECIPE = [
    "data.arithmetic.problems=500",
    "data.spare_share=0",
    "train.batch_size=16",
    f"train.max_steps={STEPS}",
    "train.max_tokens_per_gpu=512",
    "model.init.rope_theta=500000",  # not the default of any version of transformers
]
VIEWS = ["train.loggers=[tensorboard,wandb]", "train.profile_steps=2:3", "train.validate_every=10"]


@pytest.fixture(scope="session")
def short_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's folder."""
    folder = tmp_path_factory.mktemp("short")
    warmstart("data", "tiny", *RECIPE, folder=folder)
    warmstart("train", "tiny", *RECIPE, *VIEWS, folder=folder)
    return folder / "runs" / "tiny"
