"""vLLM as evaluations use it: late rollouts that take turns in a full cache, and weights in 4
bits.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from tests.gpu.bench import Bench

ROLLOUTS, TOKENS, PROMPT = 8, 1000, [5] * 8
TIGHT = 0.4
"""Share of what all rollouts need that the cache holds."""
BLOCK = 16
"""Tokens of a cache block."""


def turns(bench: Bench) -> None:
    """As many late rollouts as do not fit the cache: all end, and when the first ends the others
    are not far behind.
    """
    room = int(ROLLOUTS * (TOKENS + len(PROMPT)) * TIGHT)
    dtype = "bfloat16" if bench.on_gpu else "float32"
    behind, answers, seconds = asyncio.run(_generate(bench, dtype, late=True, room=room))
    bench.figure("rollouts cut", "", sum(answer["tokens"] < TOKENS for answer in answers), limit=0)
    # Stock vLLM leaves the last ones waiting near their beginning.
    bench.figure("behind the first to end", "of its tokens", 1 - behind / TOKENS, limit=0.5)
    bench.figure("tokens/s", "1/s", ROLLOUTS * TOKENS / seconds, note=f"a cache of {room:,} tokens")


def nf4(bench: Bench) -> None:
    """Rollouts from weights that are rounded to 4 bits as they are loaded."""
    from eval.generation.vllm_actor import NF4

    _, answers, seconds = asyncio.run(_generate(bench, NF4, late=False, room=None))
    bench.figure("rollouts cut", "", sum(answer["tokens"] < TOKENS for answer in answers), limit=0)
    bench.figure(
        "tokens/s", "1/s", ROLLOUTS * TOKENS / seconds, note=f"{ROLLOUTS} rollouts at a time"
    )


async def _generate(
    bench: Bench, dtype: str, *, late: bool, room: int | None
) -> tuple[int, list[Any], float]:
    """Runs the rollouts on one engine whose cache has ``room`` tokens.

    Returns the fewest tokens of another rollout when the first one ended, all answers, and the
    seconds they took.
    """
    from transformers import AutoConfig

    from eval.generation import vllm_actor
    from eval.generation.settings import EngineSettings, Model

    device, load = bench.setting.device, bench.load
    os.environ |= vllm_actor.environment(device, os.cpu_count() or 1, 1)
    model, context = bench.model(load.layers), TOKENS + len(PROMPT)
    config = AutoConfig.from_pretrained(model)
    config.max_position_embeddings = context
    arguments = vllm_actor.arguments(
        config,
        Model(str(model), model, dtype),
        EngineSettings(device, 1, tensor_parallel=1, concurrency=ROLLOUTS),
        context,
    )
    arguments["enforce_eager"] = (
        True  # compiling and capturing graphs takes longer than the rollouts
    )
    if room is not None:
        arguments |= {"block_size": 32 if device == "cpu" else BLOCK}
        arguments["num_gpu_blocks_override"] = room // arguments["block_size"]
    sampling = {"temperature": 1.0, "max_tokens": TOKENS, "ignore_eos": True, "detokenize": False}
    made = vllm_actor.Engine("engine", Path("/dev/stdout"), arguments, sampling)
    await made.start()
    begin = time.monotonic()
    asked = [
        asyncio.create_task(made.generate(("s", "p", k), PROMPT, k, late)) for k in range(ROLLOUTS)
    ]
    await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    others = list((await made.beat()).values())
    answers = await asyncio.gather(*asked)
    seconds = time.monotonic() - begin
    made.llm.shutdown()
    made.guard.kill()  # it would end this process as soon as that begins to end
    return min(others, default=TOKENS), answers, seconds
