"""Generation, as far as it needs no engine."""

import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import UserError
from common.records import Problem, Rollout
from eval.generation import rollout_files, vllm_actor
from eval.generation.generate import rollout_seed
from eval.generation.settings import EngineSettings, Model
from trainer.preflight.context import length


def test_seeds_depend_on_seed_and_key_only() -> None:
    keys = [(s, p, k) for s in ("a", "b") for p in ("x", "y/1") for k in range(50)]
    seeds = {key: rollout_seed(0, key) for key in keys}
    assert len(set(seeds.values())) == len(keys)
    assert all(0 <= seed < 2**31 for seed in seeds.values())
    assert seeds == {key: rollout_seed(0, key) for key in reversed(keys)}
    assert rollout_seed(1, keys[0]) != seeds[keys[0]]
    assert rollout_seed(0, ("aime2025", "aime2025-I-1", 0)) == 369715068  # never changes


def test_context() -> None:
    prompts = {("s", "a"): 10, ("s", "b"): 30}
    assert length(prompts, 70, 100) == 100
    with pytest.raises(
        UserError, match=r"s b, 30 tokens.*max_tokens=71.*101.*100: set eval.max_tokens=70 or less"
    ):
        length(prompts, 71, 100)
    with pytest.raises(UserError, match="leave that problem out"):
        length(prompts, 1, 30)


def test_environment() -> None:
    one = vllm_actor.environment("cpu", 4, 1)
    assert one["OMP_NUM_THREADS"] == "4" and one["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    two = vllm_actor.environment("cpu", 4, 2)
    assert two["OMP_NUM_THREADS"] == "2" and "VLLM_ENABLE_V1_MULTIPROCESSING" not in two
    assert "OMP_NUM_THREADS" not in vllm_actor.environment("cuda", 1, 1)


def test_four_bit_weights_are_what_vllm_calls_bitsandbytes() -> None:
    from transformers import Qwen3Config
    from vllm.engine.arg_utils import AsyncEngineArgs

    loads = {}
    for dtype in ("auto", "nf4"):
        arguments = vllm_actor.arguments(
            Qwen3Config(),
            Model("m", Path("t"), dtype),
            EngineSettings("cuda", 1, tensor_parallel=1, concurrency=4),
            context=64,
        )
        made = AsyncEngineArgs(**arguments)
        loads[dtype] = (made.dtype, made.quantization, made.create_load_config().load_format)
    assert loads == {
        "auto": ("auto", None, "auto"),
        "nf4": ("bfloat16", "bitsandbytes", "bitsandbytes"),
    }


def test_nothing_missing_starts_nothing(tmp_path: Path) -> None:
    problems = [Problem("p/1", "?", "1", "s"), Problem("p/2", "?", "1", "s")]
    with (tmp_path / rollout_files.ROLLOUTS).open("w") as f:
        for p in problems:
            for k in range(2):
                rollout_files.append(
                    f, Rollout((p.set, p.id, k), 0, "", 0, "stop", "engine-0", 0.0)
                )
    code = f"""
import sys
from pathlib import Path
from common.records import Problem
from data_prep.tokenizer.prompt import BARE
from eval.generation.generate import Generated, generate
from eval.generation.settings import EngineSettings, Model, SamplingSettings
generated = generate(
    {problems!r}, Path({str(tmp_path)!r}), Model("none", Path("none"), "auto"), BARE,
    SamplingSettings(rollouts=2, temperature=0.6, top_p=0.95, max_tokens=8, seed=0),
    EngineSettings("cpu", 1, tensor_parallel=1, concurrency=1))
assert generated == Generated(engines=0, made=0)
heavy = {{"ray", "vllm", "transformers", "torch"}} & set(sys.modules)
assert not heavy, heavy
"""
    before = sorted(tmp_path.iterdir())
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert sorted(tmp_path.iterdir()) == before
