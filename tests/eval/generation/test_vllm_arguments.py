"""What vLLM makes of an engine's arguments, as far as that needs no GPU."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from eval.generation import vllm_actor
from eval.generation.settings import EngineSettings, Model
from tests.conftest import environment

CONCURRENCIES = (None, 64, 100, 1000, 9000)


@pytest.fixture(scope="module")
def on_gpu(tmp_path_factory: pytest.TempPathFactory) -> dict[int | None, dict[str, Any]]:
    """vLLM's own configuration for each concurrency, on a CUDA platform of paper."""
    words = [str(concurrency or 0) for concurrency in CONCURRENCIES]
    module, folder = "tests.eval.generation.paper_engine", str(tmp_path_factory.mktemp("model"))
    done = subprocess.run(
        [sys.executable, "-m", module, folder, *words],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return dict(zip(CONCURRENCIES, map(json.loads, lines), strict=True))


def test_on_a_gpu_null_has_512_slots_and_steps_of_8192_tokens(
    on_gpu: dict[int | None, dict[str, Any]],
) -> None:
    assert (on_gpu[None]["requests"], on_gpu[None]["tokens"]) == (512, 8192)
    for name in ("chunked prefill", "asynchronous", "prefix caching"):
        assert on_gpu[None][name] is True
    assert (on_gpu[64]["requests"], on_gpu[64]["tokens"]) == (64, 8192)
    # vLLM refuses steps of fewer tokens than requests.
    assert (on_gpu[9000]["requests"], on_gpu[9000]["tokens"]) == (9000, 9000)


@pytest.mark.parametrize("concurrency", CONCURRENCIES)
def test_every_decode_batch_is_in_a_full_cuda_graph(
    on_gpu: dict[int | None, dict[str, Any]], concurrency: int | None
) -> None:
    assert on_gpu[concurrency]["without a graph"] == []


def test_graphs_are_vllms_own_and_those_it_lacks(
    on_gpu: dict[int | None, dict[str, Any]],
) -> None:
    more = {n: {*of["graphs"]} - {*of["stock graphs"]} for n, of in on_gpu.items()}
    assert more == {
        None: set(),
        64: set(),
        100: {100},
        1000: {*range(528, 1000, 16), 1000},
        9000: {*range(528, 9000, 16), 9000},
    }
    assert all({*of["stock graphs"]} <= {*of["graphs"]} for of in on_gpu.values())


def test_the_summary_says_how_engines_are_set(on_gpu: dict[int | None, dict[str, Any]]) -> None:
    from transformers import Qwen3Config

    assert on_gpu[None]["summary"] == (
        "tensor parallel 1, 64 to 512 requests, 8,192 tokens per step, prefix caching, "
        "CUDA graphs for batches up to 512"
    )
    assert "parallel 1, 1,000 requests, " in on_gpu[1000]["summary"]
    engines = EngineSettings("cpu", 2, tensor_parallel=2, concurrency=None)
    arguments = vllm_actor.arguments(Qwen3Config(), Model("m", Path("t"), "auto"), engines, 500)
    assert vllm_actor.summary(arguments, engines) == (
        "tensor parallel 2, 64 requests, 4,096 tokens per step, prefix caching, no CUDA graphs"
    )
