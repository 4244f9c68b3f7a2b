"""The numbers of the GRPO configuration."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir, initialize_config_module
from omegaconf import DictConfig

from common.errors import UserError
from eval.generation.settings import SamplingSettings
from eval.rl import forecast, grpo
from trainer.planning.workload import KNOWN
from trainer.recipe import load as configs

SAMPLING = SamplingSettings(rollouts=8, temperature=1.0, top_p=1.0, max_tokens=64, seed=0)


def batch(problems: int, nodes: int) -> int:
    """Problems per step on nodes of eight GPUs."""
    config = configs.load("tiny", [f"cluster.nodes={nodes}", "cluster.gpus_per_node=8"])
    start = grpo.Start("name", problems, 10, 64, SAMPLING)
    written = yaml.safe_load(grpo.config_text(start, config, SAMPLING))
    return written["data"]["train_batch_size"]


@pytest.mark.parametrize(
    ("problems", "nodes", "expected"), [(500, 2, 128), (100, 2, 96), (500, 5, 120), (500, 32, 256)]
)
def test_each_gpu_has_the_same_number_of_problems(problems: int, nodes: int, expected: int) -> None:
    assert batch(problems, nodes) == expected


def test_fewer_problems_than_gpus_are_refused() -> None:
    with pytest.raises(UserError, match=r"200 problems have .* fewer than the 256 GPUs"):
        batch(200, nodes=32)


def gpu_text(*overrides: str, limit: int = 20_480) -> str:
    """The configuration for the 4B recipe's GPUs."""
    config = configs.load("sft_4b", overrides)
    start = grpo.Start("name", 500, 512, limit, SAMPLING)
    measured = range(limit)
    gpu = forecast.settings(start, config, KNOWN["Qwen/Qwen3-4B"], measured)
    return grpo.config_text(start, config, SAMPLING, gpu)


def composed(folder: Path, text: str) -> DictConfig:
    """The text over verl's own defaults, as its trainer composes them, which refuses a key that
    verl lacks.
    """
    (folder / "grpo.yaml").write_text(text)
    with initialize_config_dir(str(folder), version_base=None):
        return compose("grpo", return_hydra_config=False)


def test_verl_takes_every_setting_for_gpus(tmp_path: Path) -> None:
    from verl.utils.config import omega_conf_to_dataclass

    written = yaml.safe_load(gpu_text())["actor_rollout_ref"]
    theirs = composed(tmp_path, gpu_text()).actor_rollout_ref
    with initialize_config_module("verl.trainer.config", version_base=None):
        defaults = compose("ppo_trainer").actor_rollout_ref
    for part in ("actor", "rollout", "ref"):
        for key, value in written[part].items():
            assert key in set(defaults[part]), key
            keys = value if isinstance(value, dict) else {}
            assert keys.keys() <= defaults[part][key].keys() if keys else theirs[part][key] == value
    actor, rollout = (omega_conf_to_dataclass(theirs[name]) for name in ("actor", "rollout"))
    assert actor.fsdp_config.entropy_from_logits_with_chunking
    assert not actor.fsdp_config.param_offload and not actor.fsdp_config.offload_policy
    assert rollout.gpu_memory_utilization == 0.8 and rollout.tensor_model_parallel_size == 2
    assert actor.ppo_max_token_len_per_gpu >= rollout.max_model_len
    assert theirs.rollout.log_prob_max_token_len_per_gpu >= rollout.max_model_len
    assert theirs.ref.fsdp_config.entropy_from_logits_with_chunking


def test_the_option_for_long_rollouts_is_one_of_verls(tmp_path: Path) -> None:
    from verl.trainer.config.algorithm import RolloutCorrectionConfig
    from verl.utils.config import omega_conf_to_dataclass

    text = gpu_text()
    assert composed(tmp_path, text).algorithm.rollout_correction.rollout_is is None
    asked = composed(tmp_path, text.replace("# rollout_correction:", "rollout_correction:"))
    assert asked.algorithm.rollout_correction.rollout_is == "token"
    known = {field.name for field in fields(RolloutCorrectionConfig)}
    assert asked.algorithm.rollout_correction.keys() - {"_target_"} <= known
    assert asked.actor_rollout_ref.rollout.calculate_log_probs
    assert omega_conf_to_dataclass(asked.algorithm).rollout_correction


def test_settings_follow_the_cluster_and_say_their_reasons() -> None:
    small = gpu_text("cluster.nodes=1", limit=32_768)
    assert "param_offload: false, optimizer_offload: true" in small
    assert "Adam's moments are on the host while vLLM generates" in small
    assert "Nothing is offloaded" in gpu_text()
    assert re.search(r"with verl's 0.5 it would hold [0-9.]+ of\n? *#? *the longest", gpu_text())
    with pytest.raises(UserError, match="GRPO does not fit"):
        gpu_text("cluster.gpu=rtx4070-12", "cluster.nodes=1", "cluster.gpus_per_node=1")


def test_a_cpu_has_no_setting_for_gpus() -> None:
    config = configs.load("tiny", ["cluster.nodes=1"])
    text = grpo.config_text(grpo.Start("name", 500, 10, 64, SAMPLING), config, SAMPLING)
    written = yaml.safe_load(text)
    assert written["defaults"][:2] == ["ppo_trainer", "cpu"]
    assert not {"gpu_memory_utilization", "log_prob_max_token_len_per_gpu"} & set(
        written["actor_rollout_ref"]["rollout"]
    )
    assert "fsdp_config" not in written["actor_rollout_ref"]["actor"]
    # Truncation is read from the longest response, not from verl's clip_ratio.
    assert "compare response_length/max with this limit" in text
