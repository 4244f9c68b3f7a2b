"""Generates rollouts of benchmark problems with vLLM engines in Ray actors that share one queue.

Each rollout is appended to ``rollouts.jsonl`` as it finishes. Rollouts in that file are never
generated again, so an interrupted evaluation resumes when it is run again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from common.errors import UserError, faults_of, first_line, refuse
from common.files import file_errors
from common.progress import progress, waiting
from common.ray_session import ray_session
from common.records import END_OF_TEXT, END_OF_TURN, THINK_CLOSE, THINK_OPEN, Key, Problem
from data_prep.tokenizer import chat
from data_prep.tokenizer.prompt import Prompt
from eval.generation import rollout_files, vllm_actor
from eval.generation.driver import Driver
from eval.generation.engines import Fleet, creator, placement
from eval.generation.hang_detector import Pulse
from eval.generation.scheduler import Scheduler
from eval.generation.settings import EngineSettings, Model, SamplingSettings
from trainer.preflight import gpu
from trainer.preflight.context import length


@dataclass(frozen=True)
class Generated:
    """The number of engines that ran and of rollouts that they made; both are 0 when no rollout was
    missing.
    """

    engines: int
    made: int


def generate(
    problems: Sequence[Problem],
    folder: Path,
    model: Model,
    prompt: Prompt,
    sampling: SamplingSettings,
    engines: EngineSettings,
) -> Generated:
    """Generates the missing rollouts of ``folder/rollouts.jsonl``, which then has
    ``sampling.rollouts`` of every problem, asked as ``prompt`` says.

    Uses the Ray cluster at RAY_ADDRESS if that is set, otherwise starts one on this machine, on
    loopback only.

    Raises UserError as ``check`` does, and when the engines do not fit Ray's nodes; StageFailed
    when no engine is left, or when rollouts were on two engines that died, which it names. Finished
    rollouts are kept.
    """
    path = folder / rollout_files.ROLLOUTS
    done = rollout_files.read(path)
    missing = [
        (p, k) for p in problems for k in range(sampling.rollouts) if (p.set, p.id, k) not in done
    ]
    if not missing:
        return Generated(engines=0, made=0)

    gpu.check_engines(engines.device)
    encoder, config, prompts, context = _inputs(problems, model, prompt, sampling.max_tokens)
    arguments = vllm_actor.arguments(config, model, engines, context)
    params = _sampling_params(encoder, model, sampling)
    tasks = {(p.set, p.id, k): prompts[p.set, p.id] for p, k in missing}
    lengths = [(key, rollout.tokens) for key, rollout in done.items()]
    scheduler = Scheduler(
        {key: len(ids) for key, ids in tasks.items()},
        lengths,
        sampling.max_tokens,
        concurrency=engines.at_most,
        at_least=engines.at_least,
    )
    seeds = {key: rollout_seed(sampling.seed, key) for key in tasks}
    folder.mkdir(parents=True, exist_ok=True)

    def log(name: str) -> Path:
        return folder.resolve() / f"{name}.log"

    # The driver reads one answer of a dead engine; Ray would print all the others.
    os.environ["RAY_IGNORE_UNHANDLED_ERRORS"] = "1"
    kind = "GPU" if engines.device == "cuda" else "CPU"
    with (
        ray_session(cpus=engines.count or 1) as ray,
        path.open("a", encoding="utf-8") as file,
        progress("rollouts", len(done) + len(missing), initial=len(done)) as line,
    ):
        nodes = [int(node["Resources"].get(kind, 0)) for node in ray.nodes() if node["Alive"]]
        count, share = placement(nodes, engines)
        fleet = Fleet(ray, creator(ray, engines, share, log, arguments, params))
        pulse = Pulse(sampling.max_tokens)
        summary = vllm_actor.summary(arguments, engines)
        driver = Driver(fleet, scheduler, pulse, tasks, seeds, log, line.say, summary)
        for rollout in driver.run([f"engine-{i}" for i in range(count)]):
            with file_errors(folder):
                rollout_files.append(file, rollout)
            line(1)
    return Generated(count, len(missing))


def rollout_seed(seed: int, key: Key) -> int:
    """Returns a rollout's seed, in 0..2^31-1. It depends only on ``seed`` and the key, not on
    engine or order.
    """
    digest = hashlib.sha256("\0".join(map(str, (seed, *key))).encode()).digest()
    return int.from_bytes(digest[:4]) & 0x7FFFFFFF


def check(
    problems: Sequence[Problem], model: Model, prompt: Prompt, max_tokens: int, device: str
) -> None:
    """Raises UserError when this machine lacks the device, the model or tokenizer does not exist,
    or the longest prompt and the budget do not fit the model's context. Starts nothing.
    """
    inputs = partial(_inputs, problems, model, prompt, max_tokens)
    refuse(faults_of([partial(gpu.check_engines, device), inputs]))


def _inputs(
    problems: Sequence[Problem], model: Model, prompt: Prompt, max_tokens: int
) -> tuple[Any, Any, dict[tuple[str, str], list[int]], int]:
    """Returns the tokenizer, the model's configuration, the token ids of each prompt by (set, id),
    and the context that the longest one needs. Raises UserError as ``check`` does.
    """
    with waiting("reading the model and the prompts"):
        from transformers import AutoConfig, AutoTokenizer

        encoder = AutoTokenizer.from_pretrained(model.tokenizer, trust_remote_code=False)
        try:
            config = AutoConfig.from_pretrained(
                model.path, revision=model.revision, trust_remote_code=False
            )
        except (OSError, ValueError) as e:  # ValueError: a config.json of no known architecture
            raise UserError(f"no model at {model.path}: {first_line(e)}") from e
    config.max_position_embeddings = model.context or config.max_position_embeddings
    prompts = {(p.set, p.id): chat.encode_prompt(encoder, p, prompt) for p in problems}
    sizes = {key: len(ids) for key, ids in prompts.items()}
    return encoder, config, prompts, length(sizes, max_tokens, config.max_position_embeddings)


def _sampling_params(encoder: Any, model: Model, sampling: SamplingSettings) -> dict[str, Any]:
    """Returns the arguments of vLLM's SamplingParams that all rollouts share."""
    specials = set(encoder.all_special_tokens)
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "stop_token_ids": _stop_ids(encoder, model),
        # The text never includes a stop token, but always the think tags, which may be special
        # tokens.
        "skip_special_tokens": not specials & {THINK_OPEN, THINK_CLOSE},
        "spaces_between_special_tokens": False,
    }


def _stop_ids(encoder: Any, model: Model) -> list[int]:
    """Returns the ids of the model's own end tokens, and of the two tokens that end a turn or a
    text in training.
    """
    from transformers import GenerationConfig

    ids = {
        encoder.get_vocab()[token]
        for token in (END_OF_TURN, END_OF_TEXT)
        if token in encoder.get_vocab()
    }
    with contextlib.suppress(OSError):  # a model without a generation config adds no end token
        eos = GenerationConfig.from_pretrained(model.path, revision=model.revision).eos_token_id
        ids.update([eos] if isinstance(eos, int) else eos or [])
    return sorted(ids)
