import shutil
from pathlib import Path

import pytest

from common.files import MANIFEST, sha256_file, write_json
from tests.conftest import warmstart
from tests.eval.rl.samples import STEP
from trainer.recipe import load as configs
from trainer.run.base_model import materialise
from trainer.run.folder import Run


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of the tiny recipe with a dataset that left rows over, and a model that nobody trained
    as its export.
    """
    folder = tmp_path_factory.mktemp("rl")
    values = [
        "data.arithmetic.problems=400",
        "data.train_rows=200",
        "data.test_rows=12",
        "eval.max_tokens=64",
    ]
    places = [
        f"data.dir={folder}/data",
        f"run.root={folder}/runs",
        "cluster.nodes=1",
        "cluster.gpus_per_node=2",
    ]
    warmstart("data", "tiny", *values, *places, folder=folder)
    config = configs.load("tiny", [*values, *places])
    run = Run(folder / "runs" / "tiny")
    configs.write(config, run.config)
    materialise(config)
    shutil.copytree(config.model.path, run.export(STEP))
    write_json(
        run.export(STEP) / MANIFEST,
        {"dataset": sha256_file(folder / "data/tiny" / MANIFEST), "files": {}},
    )
    return run


@pytest.fixture
def run(made: Run, tmp_path: Path) -> Run:
    """That run without what was prepared from it."""
    shutil.rmtree(made.rl, ignore_errors=True)
    shutil.rmtree(made.root / "evals", ignore_errors=True)
    return made
