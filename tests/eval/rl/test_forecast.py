"""``warmstart plan --rl``: lengths from a run's evaluations, and from nothing."""

import shutil

import pytest
import yaml
from omegaconf import OmegaConf

from eval.rl.prepare import prepare
from tests.eval.rl.samples import STEP, sample
from trainer.recipe import load as configs
from trainer.run.folder import Run
from trainer.run.rl_start import RlStart
from warmstart import cli


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["plan", "--rl", *arguments]) == 0
    return capsys.readouterr().out


def test_a_recipe_without_a_run_says_that_its_lengths_are_assumed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = printed(capsys, "sft_4b", "eval.max_tokens=20480")
    assert "responses: limit 20,480, mean 10,240" in shown and "ASSUMED" in shown
    assert "* 4 x 4 a100-40             2   0.80  no " in shown
    for kind in ("a100-40", "a100-80", "h100-80", "h200-141"):
        assert f"1 x 4 {kind}" in shown and f"4 x 4 {kind}" in shown
    assert "verl's own example" in shown


def test_a_runs_pool_gives_the_lengths(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Every third problem is always solved, so RL leaves it out, and so does the forecast."""
    config = configs.read(run.config)
    name = str(run.root)
    assert "ASSUMED" in printed(capsys, name)
    command = prepare(run, config, STEP, count=30).command
    sample(run, command, lambda i: 8 if i % 3 == 0 else 4, lambda i: 2 if i % 3 == 0 else 30)
    shown = printed(capsys, name, "cluster.nodes=2")
    assert "responses: limit 32, mean 31, median " in shown
    assert "measured: the 20 problems with both right and wrong rollouts of rl_pool@step_7" in shown
    assert "* 2 x 2 a100-40" in shown


def test_a_start_for_gpus_has_the_planners_settings(run: Run) -> None:
    """Those for the export's own shape, the pool's lengths and the recipe's cluster."""
    config = configs.read(run.config)
    command = prepare(run, config, STEP, count=30).command
    sample(run, command, lambda i: 4)
    on_cpu = prepare(run, config, STEP).folder
    assert on_cpu is not None and "offload" not in RlStart(on_cpu).config.read_text()
    shutil.rmtree(on_cpu)
    on_gpus = config.copy()
    OmegaConf.set_readonly(on_gpus, False)
    on_gpus.device = "cuda"
    folder = prepare(run, on_gpus, STEP).folder
    assert folder is not None
    written = yaml.safe_load(RlStart(folder).config.read_text())
    assert written["defaults"] == ["ppo_trainer", "_self_"]
    rollout = written["actor_rollout_ref"]["rollout"]
    assert (rollout["gpu_memory_utilization"], rollout["tensor_model_parallel_size"]) == (0.9, 1)
    assert rollout["log_prob_max_token_len_per_gpu"] >= rollout["max_model_len"]
