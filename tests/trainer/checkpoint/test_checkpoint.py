"""Training state: saved beside the steps, restored exactly on other ranks, refused when it is not
what was written.
"""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp

from common.errors import UserError
from common.files import MANIFEST, sha256_file, write_json, write_lock
from data_prep.tokenizer import tokenizers
from tests.conftest import ROOT
from tests.trainer.checkpoint.saves import PHASES
from trainer.checkpoint import resume, rng
from trainer.checkpoint.checkpoint import OPTIMIZER
from trainer.checkpoint.retention import Retention, prune
from trainer.recipe import load as configs
from trainer.run import base_model
from trainer.run.folder import SCALARS, SUBMISSIONS, Run
from trainer.run.trained_from import model_identity

IDENTITY = {"dataset": "d1", "model/config.json": "m1"}
LATER = 1e-5
"""Tolerance of the losses after a change of ranks, whose sums have another order."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which every phase of ``saves`` has been run."""
    root = tmp_path_factory.mktemp("saves")
    for name in PHASES:
        overrides = ["train.sequence_parallel=2"] if name == "more" else []
        config = configs.load(
            "tiny", [f"run.root={root}/runs", f"data.dir={root}/data", *overrides]
        )
        configs.write(config, root / f"{name}.yaml")
    tokenizers.trained(["some text"]).save_pretrained(str(Path(config.verl.model.tokenizer_path)))
    base_model.materialise(config)
    common = {"GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "tests.trainer.checkpoint.saves", str(root)]
    subprocess.run(command, env=os.environ | common, cwd=ROOT, check=True)
    return root


def left(root: Path, phase: str, rank: int = 0) -> dict[str, Any]:
    return torch.load(root / f"{phase}-rank{rank}.pt", weights_only=True)


@pytest.mark.parametrize("phase", ["fewer", "again", "more"])
def test_the_state_is_restored_exactly_on_any_ranks(root: Path, phase: str) -> None:
    """Four ranks to two, to the same four, and two to four with sequence parallelism."""
    saved, restored = left(root, "first"), left(root, phase)
    assert saved["state"].keys() == restored["state"].keys()
    assert sum(name.startswith(OPTIMIZER) for name in saved["state"]) > 50
    assert all(
        torch.equal(saved["state"][name], restored["state"][name]) for name in saved["state"]
    )
    tolerance = 0 if phase == "again" else LATER
    assert restored["losses"] == pytest.approx(saved["losses"], rel=0, abs=tolerance)
    assert saved["losses"][0] - saved["losses"][-1] > 100 * LATER


def test_generators_go_on_with_the_same_ranks_and_are_seeded_anew_with_others(root: Path) -> None:
    for rank in range(4):
        assert torch.equal(left(root, "first", rank)["drawn"], left(root, "again", rank)["drawn"])
    fewer = [left(root, "fewer", rank)["drawn"] for rank in range(2)]
    assert not torch.equal(*fewer)
    rng.seed(3, 3, 1)
    assert torch.equal(fewer[1], torch.rand(3))


def test_dropout_goes_on_from_the_generators_of_the_checkpoint(root: Path) -> None:
    outcome = left(root, "dropout")
    assert outcome["same"] == outcome["losses"]
    assert outcome["other"] != pytest.approx(outcome["losses"], abs=LATER)
    assert (
        "varlen_attn has no dropout, and the model has attention_dropout=0.2" in outcome["refused"]
    )


def test_a_save_that_fails_twice_in_a_row_ends_the_run_and_leaves_nothing_behind(
    root: Path,
) -> None:
    run = Run(root / "full")
    assert run.checkpoints == [1, 3]
    assert run.partial_checkpoints == []
    assert run.latest.read_text() == "step_3\n"
    for rank in range(2):
        outcome = left(root, "full", rank)
        assert outcome["settled"] is False
        assert (
            "step 4 could not be saved (rank 1: [Errno 27] File too large), twice in a row"
            in outcome["error"]
        )
        assert "the newest checkpoint (step 3)" in outcome["error"]


def test_a_checkpoint_is_what_its_manifest_says(root: Path) -> None:
    run = Run(root / "four")
    folder = run.checkpoint(3)
    manifest = json.loads((folder / MANIFEST).read_text())
    assert {p.name for p in folder.iterdir()} == {*manifest["files"], MANIFEST}
    assert {p.suffix for p in folder.iterdir()} == {".json", ".safetensors"}
    assert all(sha256_file(folder / name) == wanted for name, wanted in manifest["files"].items())
    assert json.loads((folder / SCALARS).read_text())["step"] == manifest["step"] == 3
    assert run.latest.read_text() == "step_3\n"


class Evil:
    """Leaves a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (Path.touch, (self.marker,))


def test_a_pickle_in_a_checkpoint_is_refused_and_never_executed(root: Path, tmp_path: Path) -> None:
    marker, run = tmp_path / "executed", Run(tmp_path / "run")
    folder = run.checkpoint(3)
    shutil.copytree(root / "four" / "checkpoints" / "step_3", folder)
    (folder / ".metadata").write_bytes(pickle.dumps(Evil(marker)))
    with pytest.raises(UserError, match=r"\.metadata is not in its manifest"):
        resume.choose(run, {})
    layout = dcp.HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    name, stored = next(
        (n, s)
        for n, s in layout.items()
        if n.endswith("norm.weight") and not n.startswith(OPTIMIZER)
    )
    tensors = {name: torch.empty(stored.size)}
    dcp.load(tensors, storage_reader=dcp.HuggingFaceStorageReader(str(folder)), no_dist=True)
    shard = next(folder.glob("*.safetensors"))
    shard.write_bytes(pickle.dumps(Evil(marker)))
    with pytest.raises(UserError, match=rf"{shard.name} is missing or damaged"):
        resume.choose(run, {})
    with pytest.raises(dcp.api.CheckpointException):
        dcp.load(tensors, storage_reader=dcp.HuggingFaceStorageReader(str(folder)), no_dist=True)
    assert not marker.exists()
    with pytest.raises(dcp.api.CheckpointException):  # stock DCP, for which this pickle is made
        dcp.load(tensors, checkpoint_id=str(folder), no_dist=True)
    assert marker.exists()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run with checkpoints of steps 10, 20 and 30, made of a few bytes each."""
    run = Run(tmp_path / "run")
    for step in (10, 20, 30):
        checkpoint(run, step)
    run.latest.write_text("step_20\n")
    return run


def checkpoint(run: Run, step: int) -> None:
    folder = run.checkpoint(step)
    folder.mkdir(parents=True)
    (folder / "shard").write_bytes(b"tensors")
    write_json(folder / SCALARS, {"step": step, "identity": IDENTITY})
    write_json(
        folder / MANIFEST,
        {"step": step, "files": {n: sha256_file(folder / n) for n in ("shard", SCALARS)}},
    )


def test_a_run_goes_on_from_the_newest_intact_checkpoint_and_says_why(run: Run) -> None:
    (run.checkpoint(30) / "shard").write_bytes(b"tenors")
    run.partial_checkpoint(40).mkdir()
    start = resume.choose(run, IDENTITY)
    assert start.step == 20
    assert start.notes == [
        f"{run.partial_checkpoint(40)} is ignored: its save was interrupted",
        f"{run.checkpoint(30)} is skipped: shard is missing or damaged",
        f"resuming from {run.checkpoint(20)}",
    ]
    resume.prepare(run, start)
    assert run.checkpoints == [10, 20] and run.partial_checkpoints == []
    assert (run.root / "checkpoints" / "step_30.damaged" / "shard").read_bytes() == b"tenors"
    assert run.latest.read_text() == "step_20\n"
    checkpoint(run, 30)
    (run.checkpoint(30) / SCALARS).unlink()
    resume.prepare(run, resume.choose(run, IDENTITY))
    assert (run.root / "checkpoints" / "step_30.damaged-2").is_dir()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"files": 3}', '{"fi1es": {}}'])
def test_a_manifest_that_is_none_is_damage(run: Run, content: str) -> None:
    (run.checkpoint(30) / MANIFEST).write_text(content)
    start = resume.choose(run, IDENTITY)
    assert start.step == 20 and f"{run.checkpoint(30)} is skipped: " in start.notes[0]


def test_another_dataset_or_model_is_refused_and_nothing_moved(run: Run) -> None:
    (run.checkpoint(30) / "shard").unlink()
    with pytest.raises(UserError, match="another base model") as e:
        resume.choose(run, IDENTITY | {"model/config.json": "m2"})
    assert "model/config.json: m1 -> m2" in str(e.value) and "run.name=NAME" in str(e.value)
    with pytest.raises(UserError, match="another build of the dataset:\n  dataset: d1 -> d2"):
        resume.choose(run, IDENTITY | {"dataset": "d2"})
    assert run.checkpoints == [10, 20, 30]


def test_models_of_one_shape_are_told_apart(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    (tmp_path / "config.json").write_text("{}")
    known = []
    for value in (0.0, 1.0):
        save_file({"w": torch.full((4, 4), value)}, tmp_path / "model.safetensors")
        known.append(model_identity(str(tmp_path), None))
    assert known[0].keys() == {"model/config.json", "model/model.safetensors"}
    assert known[0]["model/config.json"] == known[1]["model/config.json"]
    assert known[0]["model/model.safetensors"] != known[1]["model/model.safetensors"]
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match="is not a model"):
        model_identity(str(tmp_path), None)


def test_retention_keeps_the_last_the_nth_and_the_best() -> None:
    steps, losses = [10, 20, 30, 40, 50], {10: 1.0, 20: 0.5, 40: 0.7, 60: 0.1}
    assert Retention(2, None, 0).kept(steps, losses) == {40, 50}
    assert Retention(1, 20, 0).kept(steps, losses) == {20, 40, 50}
    assert Retention(1, None, 2).kept(steps, losses) == {20, 40, 50}
    assert Retention(9, None, 0).kept(steps, {}) == set(steps)


def test_a_checkpoint_that_is_being_exported_is_not_pruned(run: Run) -> None:
    run.deleted_checkpoint(5).mkdir()
    with write_lock(run.export_lease(10)):
        prune(run, Retention(1, None, 0))
        assert run.checkpoints == [10, 30]
    prune(run, Retention(1, None, 0))
    assert run.checkpoints == [30]
    assert run.deleted_checkpoints == []


def test_a_checkpoint_whose_evaluation_is_queued_is_not_pruned(run: Run) -> None:
    (run.root / SUBMISSIONS).write_text(
        '{"label": "base", "job": "1"}\n{"label": "10", "job": "2"}\n{"label": "3'
    )
    prune(run, Retention(1, None, 0))
    assert run.checkpoints == [10, 30]
    run.export(10).mkdir(parents=True)
    (run.export(10) / MANIFEST).write_text("{}")
    prune(run, Retention(1, None, 0))
    assert run.checkpoints == [30]


def test_generators_survive_json() -> None:
    import random

    import numpy as np

    def draws() -> list[float]:
        return [random.gauss(0, 1), np.random.standard_normal(), torch.rand(1).item()]

    rng.seed(1, 2, 3)
    draws()  # leaves half a pair in two of them
    state = json.loads(json.dumps(rng.capture(), allow_nan=False))
    expected = draws()
    rng.seed(1, 2, 4)
    assert draws() != expected
    rng.restore(state)
    assert draws() == expected
