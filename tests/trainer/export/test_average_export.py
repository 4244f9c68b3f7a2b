"""The export of an average: exact against brute force, from checkpoints, exports or both."""

import shutil
import signal
import subprocess
import sys
import weakref
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file, save_file

from common.errors import UserError
from common.files import MANIFEST, read_json, verify, write_lock
from eval import evaluate
from tests.conftest import ROOT, environment
from tests.trainer.export import averaged
from tests.trainer.export.rl_checkpoints import tiny
from trainer.export import average_export
from trainer.export.average_recipe import AverageRecipe, label_of
from trainer.export.average_weights import Average
from trainer.export.export import export as export_step
from trainer.run import models
from trainer.run.folder import Run
from trainer.run.model_label import ModelLabel

STEPS = (4, 8, 12)
THIRD = Fraction(1, 3)
KILLED = """
import os, signal, sys
from pathlib import Path
from trainer.export import average_export
from trainer.export.average_recipe import AverageRecipe, label_of
from trainer.export.average_weights import Average
from trainer.recipe import load as configs
from trainer.run.folder import Run

run, read, seen = Run(Path(sys.argv[1])), Average.read, []

def dies(self, name, *args):
    seen.append(name)
    if len(seen) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(self, name, *args)

Average.read = dies
recipe = AverageRecipe.parse("4,8", None, [4, 8])
average_export.export(run, configs.read(run.config), recipe, label_of(recipe, None))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> DictConfig:
    """A run with checkpoints of three steps."""
    config = tiny(tmp_path_factory.mktemp("averages"))
    for step in STEPS:
        averaged.save(Run.of(config), step, averaged.stepped(config, step))
    return config


@pytest.fixture
def run(made: DictConfig) -> Run:
    """That run, without exports."""
    run = Run.of(made)
    shutil.rmtree(run.root / "export", ignore_errors=True)
    return run


def average(
    run: Run, config: DictConfig, members: str, toward: str | None = None, name: str | None = None
) -> Path:
    recipe = AverageRecipe.parse(members, toward, average_export.steps_there(run))
    return average_export.export(run, config, recipe, label_of(recipe, name))


def tensors(folder: Path) -> averaged.Tensors:
    return load_file(folder / "model.safetensors")


def assert_same(ours: averaged.Tensors, theirs: averaged.Tensors) -> None:
    assert ours.keys() == theirs.keys() and "lm_head.weight" not in ours
    for name, tensor in ours.items():
        assert tensor.dtype == torch.bfloat16 and torch.equal(tensor, theirs[name]), name


@pytest.mark.parametrize(
    ("members", "toward", "shares", "name"),
    [
        ("4,8,12", None, (THIRD, THIRD, THIRD, 0), "avg_4_8_12"),
        ("12,4", None, (Fraction(1, 2), 0, Fraction(1, 2), 0), "avg_4_12"),
        ("4:1,8:2,12:4", None, [Fraction(n, 7) for n in (1, 2, 4, 0)], "avg_4_8_12_w"),
        ("4,8", "base=0.3", [Fraction(n, 20) for n in (7, 7, 0, 6)], "avg_4_8_base30"),
        ("8", "base=.125", [Fraction(n, 8) for n in (0, 7, 0, 1)], "avg_8_base12p5"),
    ],
)
def test_it_is_the_mean_in_fp64_bit_for_bit(
    run: Run,
    made: DictConfig,
    members: str,
    toward: str | None,
    shares: list[Fraction],
    name: str,
) -> None:
    folder = average(run, made, members, toward)
    assert folder.name.startswith(name)
    models_ = [*(averaged.stepped(made, step) for step in STEPS), averaged.base(made)]
    terms = [(share, model) for share, model in zip(shares, models_, strict=True) if share]
    assert_same(tensors(folder), averaged.mean(terms))
    verify(folder)


def test_it_is_within_half_a_bf16_number_of_the_exact_mean(run: Run, made: DictConfig) -> None:
    """Exact in fractions. torch rounds twice, to fp32 and to bf16, hence a little more than half of
    the 2**-8 between two bf16 numbers.
    """
    ours = tensors(average(run, made, "4:1,8:2,12:4", "base=0.3"))["model.norm.weight"]
    shares = [Fraction(n, 10) for n in (1, 2, 4, 3)]
    each = [*(averaged.stepped(made, step) for step in STEPS), averaged.base(made)]
    columns = [model["model.norm.weight"].tolist() for model in each]
    for found, values in zip(ours.tolist(), zip(*columns, strict=True), strict=True):
        exact = sum(share * Fraction(value) for share, value in zip(shares, values, strict=True))
        assert abs(Fraction(found) - exact) <= abs(exact) * Fraction(1, 2**8) / 2 * (1 + 2**-14)


@pytest.mark.parametrize("left", [(), (8,), STEPS])
def test_members_come_from_fp32_checkpoints_where_they_are_kept(
    tmp_path: Path, left: tuple[int, ...]
) -> None:
    config = tiny(tmp_path)
    run, members = Run.of(config), {step: averaged.stepped(config, step) for step in STEPS}
    for step in STEPS:
        averaged.save(run, step, members[step])
        if step in left:
            export_step(run, config, step)  # not read: the checkpoint is there
        else:
            averaged.exported(run, config, step)
    folder = average(run, config, "4,8,12")
    read = {
        step: model
        if step in left
        else {name: tensor.bfloat16().float() for name, tensor in model.items()}
        for step, model in members.items()
    }
    assert_same(tensors(folder), averaged.mean([(THIRD, model) for model in read.values()]))
    told = read_json(folder / MANIFEST)
    sources = {m["step"]: m["source"] for m in told["average"]["members"]}
    assert sources == {step: "checkpoint" if step in left else "export" for step in STEPS}
    assert (told["step"], told["dataset"]) == (12, "d" * 64)
    assert run.exports == list(STEPS)


def test_it_has_the_files_of_a_steps_export(run: Run, made: DictConfig) -> None:
    from transformers import AutoModelForCausalLM

    step, folder = export_step(run, made, 4), average(run, made, "4,8", "base=0.3", name="mix-1")
    assert folder.name == "avg_mix_1" and models.averages(run) == [ModelLabel(average="mix-1")]
    assert {p.name for p in folder.iterdir()} == {p.name for p in step.iterdir()}
    for name in {p.name for p in step.iterdir()} - {"model.safetensors", MANIFEST}:
        assert (folder / name).read_bytes() == (step / name).read_bytes(), name
    told = read_json(folder / MANIFEST)
    assert told["average"]["base"] == "3/10" and told["git"] and told["versions"]["torch"]
    assert [m["weight"] for m in told["average"]["members"]] == ["1/2", "1/2"]
    assert "model/config.json" in told["average"]["base_model"]
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)
    planned = evaluate.plan(made, run, ModelLabel.parse("avg-mix-1"))
    assert planned.model.path == str(folder)
    assert planned.folder.name.startswith("heldout@avg_mix_1-")


def test_one_members_tensor_is_in_memory_at_a_time() -> None:
    """Beside the sum; pieces of it are not kept either."""
    alive: set[int] = set()

    class Counted:
        def __init__(self) -> None:
            self.sizes = {"w": torch.Size([1000, 7])}

        def read(self, name: str, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
            assert not alive and dtype == torch.float32
            tensor = torch.ones(self.sizes[name], dtype=dtype)
            alive.add(id(tensor))
            weakref.finalize(tensor.untyped_storage(), alive.discard, id(tensor))
            return tensor

    mean = Average([(Fraction(1, 5), Counted()) for _ in range(5)]).read("w")
    assert torch.equal(mean, torch.ones(1000, 7).bfloat16()) and not alive


def test_a_killed_export_leaves_nothing_that_counts_and_the_next_one_completes(
    run: Run, made: DictConfig
) -> None:
    command = [sys.executable, "-c", KILLED, str(run.root)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert {p.name[0] for p in (run.root / "export").iterdir()} == {"."}
    assert models.exported(run) == []
    folder = average(run, made, "4,8")
    assert [p.name for p in (run.root / "export").iterdir()] == [folder.name]
    half = Fraction(1, 2)
    pair = [(half, averaged.stepped(made, 4)), (half, averaged.stepped(made, 8))]
    assert_same(tensors(folder), averaged.mean(pair))


def test_an_interrupted_export_leaves_nothing(
    run: Run, made: DictConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Average, "read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        average(run, made, "4,8")
    assert list((run.root / "export").iterdir()) == []


def test_the_same_members_again_are_left_and_others_are_refused(run: Run, made: DictConfig) -> None:
    folder = average(run, made, "4,8", name="mine")
    before = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
    assert average(run, made, "8:0.5,4:0.50", name="avg-mine") == folder
    for members, toward in (("4,12", None), ("4:1,8:2", None), ("4,8", "base=0.5")):
        with pytest.raises(UserError, match=r"another average \(4:1/2, 8:1/2, base 0\).*--name"):
            average(run, made, members, toward, name="mine")
    assert {p.name: p.stat().st_mtime_ns for p in folder.iterdir()} == before


def test_refusals_leave_nothing(run: Run, made: DictConfig, tmp_path: Path) -> None:
    with (
        write_lock(run.export_lease(8)),
        pytest.raises(UserError, match="is being written by process"),
    ):
        average(run, made, "4,8")
    run.export(ModelLabel(average="4-8")).mkdir()
    with pytest.raises(UserError, match="is not a complete export"):
        average(run, made, "4,8")
    run.export(ModelLabel(average="4-8")).rmdir()
    recipe = AverageRecipe.parse("4,16", None, [4, 16])
    with pytest.raises(UserError, match=r"no export of step 16 \(available: 4, 8, 12\)"):
        average_export.export(run, made, recipe, label_of(recipe, None))
    shard = next(run.checkpoint(8).glob("*.safetensors"))
    data = shard.read_bytes()
    shard.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(UserError, match=f"{shard.name} is missing or damaged"):
        average(run, made, "4,8")
    shard.write_bytes(data)
    other = made.copy()
    OmegaConf.set_readonly(other, False)
    shutil.copytree(made.model.path, tmp_path / "other")
    (path,) = (tmp_path / "other").glob("*.safetensors")
    save_file({**load_file(path), "model.norm.weight": torch.ones(3)}, path)
    other.model.path = str(tmp_path / "other")
    with pytest.raises(UserError, match=r"model.norm.weight is \[3\] there and \[128\] in the run"):
        average(run, other, "4,8", "base=0.3")
    assert list((run.root / "export").iterdir()) == []
