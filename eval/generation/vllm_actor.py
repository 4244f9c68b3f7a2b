"""The Ray actor around one vLLM engine."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

from common.ray_session import folder_of_sockets
from common.records import Key
from eval.generation.settings import EngineSettings, Model

KV_CACHE_LIMIT = 4 << 30
"""Maximum bytes of KV cache per engine on a CPU."""
PREFILL_TOKENS = 4096
"""Prompt tokens per step of an engine on a CPU; a longer context raises it to the context's length.
"""
STEP_TOKENS = 8192
"""Tokens per step of an engine on a GPU (max_num_batched_tokens): vLLM's own value for offline use
on an A100 (16,384 on an H100). AsyncLLM's own value is 2,048 on any GPU, with which the prefill of
a preempted rollout of 20K tokens takes ten steps instead of three.
"""
GRAPHS = 512
"""The largest batch for which vLLM captures a CUDA graph by default."""
NF4 = "nf4"
"""The dtype of weights that bitsandbytes quantizes to 4 bits while they are loaded, on a GPU."""
STRIDE = 32
"""A running rollout's token count is updated every this many tokens."""
EARLY = 1 << 30
"""vLLM's priority of a rollout that is not late; a late one's is its token count. The highest value
is preempted first when the KV cache is full.
"""
SPARE = 0.02
"""Share of the KV cache that must stay free when a waiting or preempted rollout is admitted."""


class Engine:
    """One vLLM engine. Its output, and that of vLLM's processes, goes to ``log``."""

    def __init__(
        self, name: str, log: Path, arguments: dict[str, Any], sampling: dict[str, Any]
    ) -> None:
        self.name = name
        self.arguments = arguments
        self.sampling = sampling
        with log.open("ab") as f:
            os.dup2(f.fileno(), 1)
            os.dup2(f.fileno(), 2)
        self.guard = _guard()
        self.tokens: dict[Key, int] = {}

    async def start(self) -> int:
        """Loads the model; returns the KV cache's capacity in tokens."""
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        self.llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**self.arguments))
        cache = self.llm.vllm_config.cache_config
        return int(cache.num_gpu_blocks * cache.block_size)

    async def beat(self) -> dict[Key, int]:
        """Returns the number of tokens of each running rollout, accurate to ``STRIDE``."""
        return self.tokens

    async def generate(self, key: Key, prompt: list[int], seed: int, late: bool) -> dict[str, Any]:
        """Returns one rollout of a prompt's token ids: Rollout's text, tokens, finish_reason,
        engine, seconds and mean_logprob.

        When the KV cache is full, rollouts that are not ``late`` are preempted first, the most
        recent one before the others; then the ``late`` one with the most tokens
        (:mod:`eval.generation.preemption`). They resume where they stopped.

        Raises RuntimeError when vLLM fails.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        begin = time.monotonic()
        # logprobs=0 is the chosen token's alone. Flat: a few lists, not an object per token.
        params = SamplingParams(
            seed=seed,
            output_kind=RequestOutputKind.CUMULATIVE,
            logprobs=0,
            flat_logprobs=True,
            **self.sampling,
        )
        request = "/".join(map(str, key))
        priority = 0 if late else EARLY
        self.tokens[key] = 0
        try:
            async for result in self.llm.generate(
                {"prompt_token_ids": prompt}, params, request, priority=priority
            ):
                output = result.outputs[0]
                self.tokens[key] = len(output.token_ids)
        except (EngineDeadError, EngineGenerateError) as e:
            # The driver unpickles the exception and does not import vLLM.
            raise RuntimeError(f"vLLM failed: {e}") from None
        del self.tokens[key]
        return {
            "text": output.text,
            "tokens": len(output.token_ids),
            "finish_reason": output.finish_reason,
            "engine": self.name,
            "seconds": round(time.monotonic() - begin, 3),
            "mean_logprob": output.cumulative_logprob / len(output.token_ids),
        }


def arguments(config: Any, model: Model, engines: EngineSettings, context: int) -> dict[str, Any]:
    """Returns vLLM's engine arguments. ``config`` is the model's (transformers), ``context`` is in
    tokens.
    """
    on_cpu = engines.device == "cpu"
    scheduler = "TakingTurns" if on_cpu else "AsyncTakingTurns"
    values: dict[str, Any] = {
        "model": model.path,
        "revision": model.revision,
        "tokenizer": str(model.tokenizer),
        "trust_remote_code": False,
        "dtype": "bfloat16" if model.dtype == NF4 else model.dtype,
        "max_model_len": context,
        # The caller checked the context against this value, which may differ from the model's own.
        "hf_overrides": {"max_position_embeddings": config.max_position_embeddings},
        "max_num_seqs": engines.at_most,
        # The rollouts of a problem share its prompt.
        "enable_prefix_caching": True,
        "scheduling_policy": "priority",
        "scheduler_cls": f"eval.generation.preemption.{scheduler}",
        "async_scheduling": not on_cpu,
        "watermark": SPARE,
        "tensor_parallel_size": engines.tensor_parallel,
        # Set explicitly: inside a Ray actor vLLM might choose Ray for its own workers.
        "distributed_executor_backend": "uni" if engines.tensor_parallel == 1 else "mp",
        # Ignores the model's generation config: sampling parameters and stop tokens come with each
        # request.
        "generation_config": "vllm",
        # Of the distribution that tokens are sampled from; vLLM's default is the model's own.
        "logprobs_mode": "processed_logprobs",
        "disable_log_stats": True,
        "stream_interval": STRIDE,
    }
    if model.dtype == NF4:
        values["quantization"] = "bitsandbytes"
    if on_cpu:
        values |= {
            "enforce_eager": True,
            "kv_cache_memory_bytes": _kv_bytes(config, context, engines.at_most),
            # vLLM rewinds a seeded generator after a partial prefill, which torch's CPU generator
            # cannot do.
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(context, PREFILL_TOKENS),
        }
    else:
        values |= {
            "max_num_batched_tokens": max(STEP_TOKENS, engines.at_most),
            "cudagraph_capture_sizes": graph_sizes(engines.at_most),
        }
    return values


def graph_sizes(requests: int) -> list[int]:
    """Returns the batch sizes, in tokens, of an engine's CUDA graphs: vLLM's own spacing up to its
    own largest, or to ``requests`` where that is more, and ``requests`` itself. A decode batch is
    padded to the next size, but never beyond the most requests (max_num_seqs).
    """
    most = max(requests, min(2 * requests, GRAPHS))
    sizes = {1, 2, 4, *range(8, 256, 8), *range(256, most + 1, 16), requests}
    return sorted(size for size in sizes if size <= most)


def summary(values: dict[str, Any], engines: EngineSettings) -> str:
    """Returns a one-line summary of an engine with vLLM's arguments ``values``."""
    least = f"{engines.at_least} to " if engines.at_least < engines.at_most else ""
    graphs = values.get("cudagraph_capture_sizes")
    return ", ".join(
        [
            f"tensor parallel {values['tensor_parallel_size']}",
            f"{least}{values['max_num_seqs']:,} requests",
            f"{values['max_num_batched_tokens']:,} tokens per step",
            "prefix caching" if values["enable_prefix_caching"] else "no prefix caching",
            f"CUDA graphs for batches up to {graphs[-1]:,}" if graphs else "no CUDA graphs",
        ]
    )


def environment(device: str, cores: int, tensor_parallel: int) -> dict[str, str]:
    """Returns the environment variables of an engine's processes; ``cores`` is the number of cores
    that it may use on a CPU.
    """
    values = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CONFIGURE_LOGGING": "1",
        "VLLM_RPC_BASE_PATH": folder_of_sockets(),
    }
    if device == "cpu":
        values |= {
            # By default vLLM binds every engine of a machine to the same first cores.
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": str(max(1, cores // tensor_parallel)),
            # With enforce_eager vLLM still compiles small functions, whose C++ takes 40 s to build.
            "TORCHDYNAMO_DISABLE": "1",
        }
        if tensor_parallel == 1:
            # Otherwise vLLM on a CPU turns "uni" into "mp": one more process that imports vLLM (15
            # s).
            values["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    return values


def _kv_bytes(config: Any, context: int, concurrency: int) -> int:
    """Returns the bytes of an fp32 KV cache: ``concurrency`` sequences of ``context`` tokens, up to
    KV_CACHE_LIMIT.
    """
    block = 128  # tokens; vLLM's block size on a CPU
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    token = 2 * config.num_hidden_layers * config.num_key_value_heads * head * 4
    blocks = -(-context // block) * concurrency + 1
    return min(blocks * block * token, KV_CACHE_LIMIT)


def _guard() -> subprocess.Popen[bytes]:
    """Starts a shell that kills vLLM's processes when this process ends, however it ends.

    vLLM leaves its engine process running when its parent is killed. So this process leads a
    process group, and a shell outside of the group waits until the pipe from this process closes,
    then kills the group. Returns the shell's process.
    """
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    return subprocess.Popen(
        ["sh", "-c", f"read _; kill -KILL -{os.getpid()}"],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
