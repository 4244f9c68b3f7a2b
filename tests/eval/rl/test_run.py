"""verl's GRPO as the script runs it: real steps on CPUs, killed, resumed, stopped, evaluated."""

import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from common.exit_codes import STOPPED
from common.files import read_json, read_jsonl
from eval.rl.prepare import prepare
from tests.conftest import Line, environment, warmstart
from trainer.recipe import load as configs
from trainer.run.folder import Run, is_complete, parse_evaluation
from trainer.run.model_label import ModelLabel
from trainer.run.rl_start import RlStart

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]
STEPS = 6
ASKED = (
    "data.train_batch_size=8",
    "actor_rollout_ref.actor.ppo_mini_batch_size=8",
    "actor_rollout_ref.actor.optim.lr=1e-4",
    "actor_rollout_ref.actor.optim.lr_warmup_steps=0",
    f"trainer.total_training_steps={STEPS}",
    "trainer.save_freq=2",
    "trainer.test_freq=6",
)


@pytest.fixture(scope="module")
def start(line: Line, tmp_path_factory: pytest.TempPathFactory) -> RlStart:
    """A start from the line's own export, in a copy of its folder."""
    folder = tmp_path_factory.mktemp("grpo") / "copy"
    shutil.copytree(line.folder, folder)
    os.chdir(folder)
    run = Run(Path("runs/tiny"))
    config, step = configs.read(run.config), run.exports[-1]
    words = ["eval.rollouts=4", "cluster.nodes=1", "cluster.gpus_per_node=1"]
    first = prepare(run, config, step, words, count=48)
    warmstart(*shlex.split(first.command)[1:], folder=folder)
    made = prepare(run, config, step, words).folder
    assert made is not None
    return RlStart(folder / made)


def started(start: RlStart, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["bash", str(start.script), *ASKED, *words],
        env=environment() | {"VIRTUAL_ENV": sys.prefix},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def until(what: Callable[[], bool], process: subprocess.Popen[str], seconds: int = 900) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.2)


def metrics(start: RlStart) -> dict[int, dict[str, Any]]:
    lines = list(read_jsonl(start.metrics, growing=True)) if start.metrics.exists() else []
    assert [line["step"] for line in lines] == sorted({line["step"] for line in lines})
    return {line["step"]: line["data"] for line in lines}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {k: v.double() for p in folder.glob("*.safetensors") for k, v in load_file(p).items()}


def test_killed_resumed_and_stopped_it_trains_the_model(start: RlStart) -> None:
    first = started(start)
    until(lambda: 3 in metrics(start), first)
    first.kill()
    first.communicate()
    assert start.latest == 2 and start.steps == [2]

    second = started(start)
    until(lambda: 4 in metrics(start), second)
    second.send_signal(signal.SIGINT)
    said = second.communicate()[0]
    assert second.returncode == STOPPED, said
    assert 4 < start.latest < STEPS, "it saved the step it was in"

    third = started(start)
    said = third.communicate()[0]
    assert third.returncode == 0, said
    assert start.latest == STEPS and re.search(rf"step {STEPS}/{STEPS}  .*reward ", said)

    found = metrics(start)
    assert set(range(1, STEPS + 1)) <= found.keys() <= set(range(STEPS + 1))
    for step in range(1, STEPS + 1):
        data = found[step]
        assert data["training/rollout_actor_probs_pearson_corr"] > 0.999
        assert data["training/rollout_probs_diff_mean"] < 1e-3
        assert 0 <= data["critic/score/mean"] <= 1
    assert found[1]["actor/grad_norm"] > 0
    assert math.isclose(found[1]["actor/lr"], 1e-4)
    assert any(key.startswith("val-core/") for key in found[STEPS])

    run = Run(start.root.parents[1])
    before = weights(run.export(read_json(start.manifest)["step"]))
    after = weights(start.weights(STEPS))
    assert after.keys() >= before.keys()
    changes = [(after[k] - before[k]).abs().max().item() for k in before]
    assert min(changes) > 0, "each tensor was trained"
    assert max(changes) < 0.1

    warmstart("eval", "runs/tiny", f"rl-{STEPS}", "eval.rollouts=2", folder=Path.cwd())
    label = ModelLabel(rl=STEPS, start=start.hash)
    (evaluation,) = (e for e in run.evaluations if parse_evaluation(e)[1] == label)
    assert is_complete(evaluation)
    ends = read_json(run.export(label) / "generation_config.json")["eos_token_id"]
    assert len(ends) == 2
    for name, tensor in weights(run.export(label)).items():
        torch.testing.assert_close(tensor, after[name], atol=0, rtol=2**-8)
