"""Rollouts of benchmark problems: Ray actors with vLLM engines fed from one queue.

Each rollout goes to ``rollouts.jsonl`` as it finishes. What is there already is never generated again,
so an evaluation that ended half-way continues when it is run again.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep import chat
from data_prep.errors import StageFailed
from data_prep.progress import progress
from data_prep.ray_session import ray_session
from data_prep.schema import END_OF_TEXT, END_OF_TURN, THINK_CLOSE, THINK_OPEN, Key, Problem, Rollout
from eval import engine, ledger


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
    engines: int,
    tensor_parallel: int,
    concurrency: int,
    revision: str | None = None,
    model_context: int | None = None,
) -> None:
    """Completes ``folder/rollouts.jsonl`` with ``rollouts`` rollouts of every problem.

    ``model`` is a folder or a hub name; ``max_tokens`` the budget of one rollout, ``concurrency`` the
    requests of one engine at a time; ``temperature`` 0 is greedy; ``device`` is cuda or cpu;
    ``model_context``, in tokens, overrides the model's max_position_embeddings. Ray is the cluster at
    RAY_ADDRESS when that is set, else an instance of this machine, on loopback only.

    Raises ValueError when there is no such model, the context does not fit it, or the engines do not fit the
    machine, and StageFailed naming the engine when one dies; what had finished is kept.
    """
    path = folder / ledger.ROLLOUTS
    done = ledger.read(path)
    missing = [(p, k) for p in problems for k in range(rollouts) if (p.set, p.id, k) not in done]
    if not missing:
        return

    from transformers import AutoConfig, AutoTokenizer

    encoder = AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False)
    try:
        config = AutoConfig.from_pretrained(model, revision=revision, trust_remote_code=False)
    except OSError as e:
        raise ValueError(f"no model at {model}: {str(e).splitlines()[0]}") from e
    config.max_position_embeddings = model_context or config.max_position_embeddings
    prompts = {(p.set, p.id): chat.encode_prompt(encoder, p.problem) for p in problems}
    context = context_length(
        {key: len(ids) for key, ids in prompts.items()}, max_tokens, config.max_position_embeddings
    )
    arguments = engine.arguments(
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
    tasks = [((p.set, p.id, k), prompts[p.set, p.id]) for p, k in missing]
    folder.mkdir(parents=True, exist_ok=True)
    with (
        ray_session(cpus=engines) as ray,
        path.open("a", encoding="utf-8") as file,
        progress("rollouts", len(done) + len(missing), initial=len(done)) as advance,
    ):
        actors = _actors(ray, folder, arguments, sampling, device, engines, tensor_parallel)
        for rollout in _run(ray, actors, tasks, seed, concurrency, folder):
            ledger.append(file, rollout)
            advance(1)


def rollout_seed(seed: int, key: Key) -> int:
    """The seed of one rollout, in 0..2^31-1: from the run's seed and the key alone, not engine or order."""
    digest = hashlib.sha256("\0".join(map(str, (seed, *key))).encode()).digest()
    return int.from_bytes(digest[:4]) & 0x7FFFFFFF


def context_length(prompts: Mapping[tuple[str, str], int], max_tokens: int, limit: int) -> int:
    """Tokens of context that the longest prompt and the budget need.

    ``prompts`` is (set, id) -> tokens; ``limit`` the model's max_position_embeddings. Raises ValueError
    when they do not fit: a prompt is never cut.
    """
    (name, problem), longest = max(prompts.items(), key=lambda item: item[1])
    if longest + max_tokens > limit:
        room = limit - longest
        mend = f"set eval.max_tokens={room} or less" if room > 0 else "leave that problem out"
        raise ValueError(
            f"the longest prompt ({name} {problem}, {longest} tokens) and eval.max_tokens={max_tokens} need "
            f"a context of {longest + max_tokens} tokens, but the model has {limit}: {mend}"
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


def _actors(
    ray: Any,
    folder: Path,
    arguments: dict[str, Any],
    sampling: dict[str, Any],
    device: str,
    engines: int,
    tensor_parallel: int,
) -> dict[str, Any]:
    """Engines by name, their models loading."""
    kind = "GPU" if device == "cuda" else "CPU"
    there = int(ray.cluster_resources().get(kind, 0))
    share = tensor_parallel if device == "cuda" else max(1, there // engines)
    if engines * share > there:
        raise ValueError(
            f"eval.engines={engines} with eval.tensor_parallel={tensor_parallel} need {engines * share} "
            f"{kind}s, but Ray has {there}: lower them" + (", or set device=cpu" if kind == "GPU" else "")
        )
    resources = {"num_gpus": share} if device == "cuda" else {"num_cpus": share}
    remote = ray.remote(engine.Engine).options(
        **resources,
        max_concurrency=10_000,  # the driver counts the requests
        runtime_env={"env_vars": engine.environment(device, share, tensor_parallel)},
    )
    names = [f"engine-{i}" for i in range(engines)]
    return {n: remote.remote(n, _log(folder, n), arguments, sampling) for n in names}


def _run(
    ray: Any,
    actors: Mapping[str, Any],
    tasks: Sequence[tuple[Key, list[int]]],
    seed: int,
    concurrency: int,
    folder: Path,
) -> Iterator[Rollout]:
    """Yields rollouts as they finish. Each engine takes its first tasks as soon as it is up."""
    queue = deque(tasks)
    starting = {actor.start.remote(): name for name, actor in actors.items()}
    running: dict[Any, tuple[str, Key, int]] = {}

    def feed(name: str) -> None:
        if queue:
            key, prompt = queue.popleft()
            number = rollout_seed(seed, key)
            running[actors[name].generate.remote("/".join(map(str, key)), prompt, number)] = (
                name,
                key,
                number,
            )

    while queue or running:
        [ref], _ = ray.wait([*starting, *running], num_returns=1)
        name = starting[ref] if ref in starting else running[ref][0]
        try:
            result = ray.get(ref)
        except ray.exceptions.RayError as e:
            reason = (str(e).strip().splitlines() or [type(e).__name__])[-1].strip()
            raise StageFailed(
                f"{name} died ({reason}): see {_log(folder, name)}. "
                "Finished rollouts are kept, and the same command goes on from there"
            ) from e
        if starting.pop(ref, None):
            for _ in range(concurrency):
                feed(name)
            continue
        _, key, number = running.pop(ref)
        assert result["finish_reason"] in ("stop", "length"), result
        yield Rollout(key=key, seed=number, **result)
        feed(name)


def _log(folder: Path, name: str) -> Path:
    return folder.resolve() / f"{name}.log"
