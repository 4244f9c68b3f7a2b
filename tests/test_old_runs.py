"""A run that older code made goes on, and its evaluations and submissions are known.

old_run.tar.gz is a run of the recipe tiny with ``WORDS``, its dataset and its evaluations, made by
commit 59af62b: it was stopped after step 7 of 18, exported, evaluated and watched.
"""

import socket
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from common.errors import UserError
from common.files import MANIFEST, read_json, sha256_json, write_json
from data_prep.tokenizer import chat
from eval import evaluate
from eval.results import evaluation
from slurm.queue import submit_evaluations
from tests.conftest import environment, lines
from trainer.recipe import load as configs
from trainer.run.folder import Run, is_complete
from trainer.run.frozen_config import check
from trainer.run.model_label import BASE, ModelLabel
from warmstart import dataset

SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
}
WORDS = [
    "run.name=old",
    "data.name=old",
    "data.arithmetic.problems=150",
    "data.spare_share=0",
    "data.test_rows=8",
    "train.batch_size=16",
    "train.save_every=4",
    "train.ranks=1",
    *(f"model.init.{key}={value}" for key, value in SHAPE.items()),
    "eval.rollouts=2",
    "eval.max_tokens=16",
    "eval.engines=1",
]
STOPPED, STEPS, LAST_LOSS = 7, 18, 4.952
"""The loss is the one that the older code came to, going on by itself."""


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The run, in the current folder."""
    with tarfile.open(Path(__file__).with_name("old_run.tar.gz")) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return Run(Path("runs/old"))


def aged(run: Run) -> Run:
    """The run as code still older would have left it: without some keys, and with others that are
    no more.
    """
    for path in (run.config, run.attempts[0].config):
        config = OmegaConf.load(path)
        del (
            config.train.warmup_steps,
            config.train.betas,
            config.data.answer_style,
            config.eval.tensor_parallel,
        )
        del (
            config.verl.engine.full_determinism,
            config.verl.optim.weight_decay,
            config.cluster,
            config.model.license,
        )
        config.mutable.remove("train.hang_minutes")
        OmegaConf.update(config, "train.gone", 7, force_add=True)
        OmegaConf.update(config, "gone", {"a": {"b": 1}}, force_add=True)
        OmegaConf.update(config, "verl.gone", "x", force_add=True)
        OmegaConf.save(config, path)
    return run


def test_what_an_old_run_lacks_is_the_default_and_what_it_has_stays(old: Run) -> None:
    own = OmegaConf.load(aged(old).config)
    own.train.seed = 43  # as if the recipe's had been another then
    OmegaConf.save(own, old.config)
    config, default = configs.read(old.config), configs.load("tiny", WORDS)
    assert "gone" not in config and "gone" not in config.train and "gone" not in config.verl
    assert (config.train.seed, config.verl.engine.seed, default.train.seed) == (43, 42, 42)
    assert config.train.betas == default.train.betas == [0.9, 0.95]
    assert "mutable" not in config and "data" not in config.verl and "trainer" not in config.verl
    assert (config.train.warmup_steps, config.cluster) == (None, default.cluster)
    # base.yaml says ${train.weight_decay}, which this recipe sets.
    assert OmegaConf.to_container(config.verl.optim, resolve=False)["weight_decay"] == 0.01
    assert configs.immutable_changes(config, default) == ["train.seed: 43 -> 42"]


def test_only_what_the_user_changes_is_refused(old: Run) -> None:
    run = aged(old)
    assert check(configs.load("tiny", [*WORDS, "train.hang_minutes=1"])) == run
    with pytest.raises(UserError, match="was started with other values") as error:
        check(configs.load("tiny", [*WORDS, "train.lr=1e-3", "train.warmup_steps=3"]))
    assert [line.strip() for line in str(error.value).splitlines()[1:-1]] == [
        "train.lr: 0.002 -> 0.001",
        "train.warmup_steps: None -> 3",
    ]
    with pytest.raises(UserError, match=r"cannot change: train\.warmup_steps: None -> 3"):
        configs.amend(configs.read(run.config), ["train.warmup_steps=3"])


def test_an_old_runs_evaluations_and_submissions_are_known(old: Run) -> None:
    config = configs.read(old.config)
    folders = [evaluate.plan(config, old, label).folder for label in (BASE, ModelLabel(STOPPED))]
    assert folders == old.evaluations and all(map(is_complete, folders))
    assert evaluate.plan(configs.read(aged(old).config), old, BASE).folder == folders[0]
    (group,) = evaluation.groups(old, partial=False)
    assert sorted(group) == [BASE, ModelLabel(STOPPED)]


def test_an_old_dataset_is_not_built_again(old: Run) -> None:
    """``warmstart run`` looks at the dataset before it goes on with the run."""
    path = Path("data/old") / MANIFEST
    made = read_json(path)
    del made["settings"]["rows"]["answer_style"], made["settings"]["rows"]["filters"]
    made["settings"]["rows"]["gone"] = 3
    write_json(path, made)
    assert dataset.build(configs.load("tiny", WORDS))[2] is False
    with pytest.raises(UserError, match=r"rows\.answer_style: boxed -> answer_is"):
        dataset.build(
            configs.load(
                "tiny", [*WORDS, "data.columns={messages: m}", "data.answer_style=answer_is"]
            )
        )


def test_an_old_dataset_and_evaluation_know_a_template_by_its_texts(
    old: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their manifests have the hash of the template's file as it was then."""
    config, source = configs.load("tiny", WORDS), chat.template()
    monkeypatch.setattr(chat, "template", lambda: "{# a comment #}" + source)
    assert dataset.build(config)[2] is False
    assert evaluate.plan(configs.read(old.config), old, BASE).folder == old.evaluations[0]
    monkeypatch.setattr(chat, "template", lambda: source.replace("<|im_end|>", "<|endoftext|>"))
    with pytest.raises(UserError, match=r"built with other settings:\n  template: 2eefca\w+ -> "):
        dataset.build(config)


def test_hashes_of_an_old_runs_configuration_are_what_they_were(old: Run) -> None:
    """Those of the report and of preparations for RL, as the older code wrote them, and those of
    its submissions.
    """
    config, words = configs.read(old.config), ["eval.rollouts=8", "eval.temperature=1.0"]
    hashes = [
        sha256_json(configs.own_values(c, old.config))[:8]
        for c in (config, configs.amend(config, words))
    ]
    assert hashes == ["2caf1538", "8c4795ff"]
    before = old.notes(submit_evaluations.SUBMISSIONS)
    assert (
        submit_evaluations.submit_missing(old, []) == 0
        and old.notes(submit_evaluations.SUBMISSIONS) == before
    )
    run = aged(old)
    own = OmegaConf.load(run.config)
    assert configs.own_values(configs.read(run.config), run.config) == OmegaConf.to_container(own)
    own.eval.tensor_parallel = 2
    changed = configs.amend(configs.read(run.config), ["eval.tensor_parallel=2"])
    assert configs.own_values(changed, run.config) == OmegaConf.to_container(own)


HOG, HOGS = 12, 0.4
"""A step that takes so many GB more than the others; every validation takes half of it."""
TRAIN = f"""
import sys
from trainer.process import cpu_platform as platform
platform.use("cpu")
import numpy as np
from trainer.loop.step import Stepper
from warmstart.cli import main

train, validate = Stepper.train, Stepper.validate

def hungry_train(self, step, **running):
    if step + 1 == {HOG}:
        np.ones(int({HOGS}e9 / 8))
    return train(self, step, **running)

def hungry_validate(self, *arguments):
    np.ones(int({HOGS}e9 / 16))
    return validate(self, *arguments)

Stepper.train, Stepper.validate = hungry_train, hungry_validate
sys.exit(main(["train", "tiny", *sys.argv[1:]]))
"""


def test_an_old_run_goes_on_and_each_steps_peak_memory_is_its_own(old: Run) -> None:
    """As the one task of a job step, which trains in the process that is started here."""
    with socket.create_server(("", 0)) as server:
        port = str(server.getsockname()[1])
    task = {
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_ID": "0",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
        "SLURM_NTASKS": "1",
        "SLURM_JOB_END_TIME": str(int(time.time()) + 36000),
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": port,
        "NODE_NAMES": "n1",
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, *WORDS, "train.validate_every=5"],
        env=environment() | task,
        cwd=aged(old).root.parent.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"resuming from runs/old/checkpoints/step_{STOPPED}" in done.stdout
    steps = {line["step"]: line for line in lines(old.attempts[1].metrics)}
    assert list(steps) == list(range(STOPPED + 1, STEPS + 1))
    assert steps[STEPS]["loss"] == pytest.approx(LAST_LOSS, abs=0.01)
    peaks = {step: line["peak_memory_gb"] for step, line in steps.items()}
    for more, step in ((HOGS, HOG), (HOGS / 2, 15)):
        assert steps[step]["val_loss"] is None or step == 15
        assert peaks[step] - max(peaks[step - 1], peaks[step + 1]) > 0.9 * more, peaks
