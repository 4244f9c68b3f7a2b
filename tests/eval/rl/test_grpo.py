"""The numbers of the GRPO configuration."""

import pytest
import yaml

from common.errors import UserError
from eval.generation.settings import SamplingSettings
from eval.rl import grpo
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
