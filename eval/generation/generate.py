"""Rollouts of benchmark problems: Ray actors with vLLM engines fed from one queue.

Each rollout goes to ``rollouts.jsonl`` as it finishes. What is there already is never generated again,
so an evaluation that ended half-way continues when it is run again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.progress import progress
from common.ray_session import ray_session
from common.records import END_OF_TEXT, END_OF_TURN, THINK_CLOSE, THINK_OPEN, Key, Problem
from data_prep.tokenizer import chat
from eval.generation import rollout_files, vllm_actor
from eval.generation.driver import Driver
from eval.generation.engines import Fleet, creator, placement
from eval.generation.hang_detector import Pulse
from eval.generation.scheduler import Scheduler


def generate(
    problems: Sequence[Problem],
    model: str,
    tokenizer: Path,
    folder: Path,
    *,
    rollouts: int,
    temperature: float,
    top_p: float,
    max_tokens: int,
    seed: int,
    dtype: str,
    device: str,
    engines: int | None,
    tensor_parallel: int,
    concurrency: int,
    revision: str | None = None,
    model_context: int | None = None,
) -> tuple[int, int]:
    """Completes ``folder/rollouts.jsonl`` with ``rollouts`` rollouts of every problem.

    Returns how many engines worked, and how many rollouts they made.

    ``model`` is a folder or a hub name; ``max_tokens`` the budget of one rollout, ``concurrency`` the
    most requests of one engine at a time, ``engines`` null as many as fit; ``temperature`` 0 is greedy;
    ``device`` is cuda or cpu; ``model_context``, in tokens, overrides the model's max_position_embeddings. Ray is
    the cluster at RAY_ADDRESS when that is set, else an instance of this machine, on loopback only.

    Raises UserError when there is no such model, the context does not fit it, or the engines do not fit the
    machine, and StageFailed when no engine is left, or naming the rollouts that were on two engines that died; what
    had finished is kept.
    """
    path = folder / rollout_files.ROLLOUTS
    done = rollout_files.read(path)
    missing = [(p, k) for p in problems for k in range(rollouts) if (p.set, p.id, k) not in done]
    if not missing:
        return 0, 0

    from transformers import AutoConfig, AutoTokenizer

    encoder = AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False)
    try:
        config = AutoConfig.from_pretrained(model, revision=revision, trust_remote_code=False)
    except OSError as e:
        raise UserError(f"no model at {model}: {str(e).splitlines()[0]}") from e
    config.max_position_embeddings = model_context or config.max_position_embeddings
    prompts = {(p.set, p.id): chat.encode_prompt(encoder, p.problem) for p in problems}
    context = context_length(
        {key: len(ids) for key, ids in prompts.items()}, max_tokens, config.max_position_embeddings
    )
    arguments = vllm_actor.arguments(
        config, model=model, revision=revision, tokenizer=tokenizer, dtype=dtype, device=device,
        tensor_parallel=tensor_parallel, concurrency=concurrency, context=context,
    )  # fmt: skip
    specials = set(encoder.all_special_tokens)
    sampling = {
        "temperature": temperature,
        "top_p": top_p,
        "max_tokens": max_tokens,
        "stop_token_ids": _stop_ids(encoder, model, revision),
        # A stop token is never part of the text; the think tags always are, special or not.
        "skip_special_tokens": not specials & {THINK_OPEN, THINK_CLOSE},
        "spaces_between_special_tokens": False,
    }
    tasks = {(p.set, p.id, k): prompts[p.set, p.id] for p, k in missing}
    lengths = [(key, rollout.tokens) for key, rollout in done.items()]
    scheduler = Scheduler({key: len(ids) for key, ids in tasks.items()}, lengths, max_tokens, concurrency)
    seeds = {key: rollout_seed(seed, key) for key in tasks}
    folder.mkdir(parents=True, exist_ok=True)

    def log(name: str) -> Path:
        return folder.resolve() / f"{name}.log"

    # One answer of a dead engine is read; Ray would print all the others.
    os.environ["RAY_IGNORE_UNHANDLED_ERRORS"] = "1"
    kind = "GPU" if device == "cuda" else "CPU"
    with (
        ray_session(cpus=engines or 1) as ray,
        path.open("a", encoding="utf-8") as file,
        progress("rollouts", len(done) + len(missing), initial=len(done)) as advance,
    ):
        nodes = [int(node["Resources"].get(kind, 0)) for node in ray.nodes() if node["Alive"]]
        count, share = placement(nodes, engines, tensor_parallel, device)
        fleet = Fleet(ray, creator(ray, device, share, tensor_parallel, log, arguments, sampling))
        driver = Driver(fleet, scheduler, Pulse(max_tokens), tasks, seeds, log)
        for rollout in driver.run([f"engine-{i}" for i in range(count)]):
            rollout_files.append(file, rollout)
            advance(1)
    return count, len(missing)


def rollout_seed(seed: int, key: Key) -> int:
    """The seed of one rollout, in 0..2^31-1: from the run's seed and the key alone, not engine or order."""
    digest = hashlib.sha256("\0".join(map(str, (seed, *key))).encode()).digest()
    return int.from_bytes(digest[:4]) & 0x7FFFFFFF


def context_length(prompts: Mapping[tuple[str, str], int], max_tokens: int, limit: int) -> int:
    """Tokens of context that the longest prompt and the budget need.

    ``prompts`` is (set, id) -> tokens; ``limit`` the model's max_position_embeddings. Raises UserError
    when they do not fit: a prompt is never cut.
    """
    (name, problem), longest = max(prompts.items(), key=lambda item: item[1])
    if longest + max_tokens > limit:
        room = limit - longest
        fix = f"set eval.max_tokens={room} or less" if room > 0 else "leave that problem out"
        raise UserError(
            f"the longest prompt ({name} {problem}, {longest} tokens) and eval.max_tokens={max_tokens} need "
            f"a context of {longest + max_tokens} tokens, but the model has {limit}: {fix}"
        )
    return longest + max_tokens


def _stop_ids(encoder: Any, model: str, revision: str | None) -> list[int]:
    """The model's own end tokens, and the two that training may end a turn or a text with."""
    from transformers import GenerationConfig

    ids = {encoder.get_vocab()[token] for token in (END_OF_TURN, END_OF_TEXT) if token in encoder.get_vocab()}
    with contextlib.suppress(OSError):  # a model without a generation config has no more to say
        eos = GenerationConfig.from_pretrained(model, revision=revision).eos_token_id
        ids.update([eos] if isinstance(eos, int) else eos or [])
    return sorted(ids)
