"""Real vLLM engines whose cache is too small for what they have in flight."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from common.ray_session import ray_session
from common.records import Key
from eval.generation import vllm_actor
from eval.generation.engines import creator
from eval.generation.settings import EngineSettings, Model
from tests.conftest import Line

ROLLOUTS, TOKENS, PROMPT = 8, 1000, [5] * 8
ENGINE = EngineSettings("cpu", 1, tensor_parallel=1, concurrency=ROLLOUTS)
AMPLE, TIGHT = 1.0, 0.44
EARLY, LATE, BOTH = [False] * ROLLOUTS, [True] * ROLLOUTS, [False, True] * (ROLLOUTS // 2)


class Gated(vllm_actor.Engine):
    """An engine that schedules nothing until it has been asked for all rollouts.

    Who is preempted depends on who came when, so without a gate a test would be a race.
    """

    async def shut(self) -> None:
        await self.llm.pause_generation(mode="keep", clear_cache=False)
        self.sent, self.send = 0, self.llm.engine_core.add_request_async

        async def counted(*of: Any, **how: Any) -> None:
            await self.send(*of, **how)
            self.sent += 1

        self.llm.engine_core.add_request_async = counted

    async def open(self, rollouts: int) -> None:
        while self.sent < rollouts:
            await asyncio.sleep(0.01)
        self.llm.engine_core.add_request_async = self.send
        await self.llm.resume_generation()


@pytest.fixture(autouse=True)
def _gated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_actor, "Engine", Gated)


@pytest.fixture
def arguments(line: Line) -> dict[str, Any]:
    """vLLM's, for an engine on a CPU whose cache holds all rollouts."""
    from transformers import AutoConfig

    model = line.export()
    config = AutoConfig.from_pretrained(model)
    config.max_position_embeddings = TOKENS + len(PROMPT)
    values = vllm_actor.arguments(
        config, Model(str(model), model, "float32"), ENGINE, context=TOKENS + len(PROMPT)
    )
    return values | {"block_size": 32}


@pytest.fixture
def unlike(arguments: dict[str, Any], line: Line) -> dict[str, Any]:
    """The same for random weights: no two rollouts begin alike, so none shares another's cache, and
    who has to wait does not depend on what a model has learnt.
    """
    return arguments | {"model": str(line.run / "base")}


def start(ray: Any, log: Path, arguments: dict[str, Any], share: float) -> tuple[Any, int]:
    """An engine with a ``share`` of the cache, and the tokens that it holds."""
    room = int(arguments["kv_cache_memory_bytes"] * share)
    sampling = {"temperature": 1.0, "max_tokens": TOKENS, "ignore_eos": True}
    create = creator(
        ray, ENGINE, 1, lambda name: log, arguments | {"kv_cache_memory_bytes": room}, sampling
    )
    actor = create("engine")
    return actor, ray.get(actor.start.remote())


def ask(ray: Any, actor: Any, late: list[bool]) -> tuple[list[str], list[float], list[int]]:
    """Texts, seconds, and the tokens that the others had when the first one ended."""
    ray.get(actor.shut.remote())
    asked = [actor.generate.remote(("s", "p", k), PROMPT, k, late[k]) for k in range(ROLLOUTS)]
    ray.get(actor.open.remote(ROLLOUTS))
    ray.wait(asked)
    others = ray.get(actor.beat.remote())
    answers = ray.get(asked)
    return [a["text"] for a in answers], [a["seconds"] for a in answers], sorted(others.values())


def test_what_waits_for_room_says_the_same_and_late_ones_take_turns(
    unlike: dict[str, Any], tmp_path: Path
) -> None:
    with ray_session(cpus=1) as ray:
        actor, capacity = start(ray, tmp_path / "ample.log", unlike, AMPLE)
        assert capacity >= ROLLOUTS * (len(PROMPT) + TOKENS)
        texts, *_ = ask(ray, actor, EARLY)
        assert len(set(texts)) == ROLLOUTS
        ray.kill(actor)

        actor, capacity = start(ray, tmp_path / "tight.log", unlike, TIGHT)
        assert capacity < ROLLOUTS * (len(PROMPT) + TOKENS) / 2
        stock, _, left_behind = ask(ray, actor, EARLY)
        turns, _, together = ask(ray, actor, LATE)
        assert depths(tmp_path / "tight.log") == [1]  # as on GPUs
        mixed, seconds, _ = ask(ray, actor, BOTH)
    assert stock == turns == mixed == texts
    assert left_behind[0] < TOKENS / 2 and together[0] > TOKENS * 3 / 4
    assert max(seconds[1::2]) < min(seconds[0::2])


@pytest.mark.slow
def test_an_engine_with_processes_as_vllm_chooses_them_says_the_same(
    unlike: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """VLLM_ENABLE_V1_MULTIPROCESSING=1 is vLLM's default; on a CPU it puts the worker in one more
    process.

    The core has a process of its own either way, as on GPUs, and our scheduler is imported there.
    """
    own, logs = vllm_actor.environment, [tmp_path / "inside.log", tmp_path / "own.log"]
    with ray_session(cpus=1) as ray:
        actor, _ = start(ray, logs[0], unlike, AMPLE)
        texts, *_ = ask(ray, actor, EARLY)
        inside = depths(logs[0])
        ray.kill(actor)
        monkeypatch.setattr(
            vllm_actor,
            "environment",
            lambda *of: own(*of) | {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"},
        )
        actor, _ = start(ray, logs[1], unlike, TIGHT)
        turns, _, together = ask(ray, actor, LATE)
        outside = depths(logs[1])
    assert (inside, outside) == ([1], [1])
    assert "(Worker pid=" not in logs[0].read_text() and "(Worker pid=" in logs[1].read_text()
    assert turns == texts and together[0] > TOKENS * 3 / 4


class Telling(vllm_actor.Engine):
    """An engine that also tells a rollout's tokens, and those that it makes of the same seed when
    no log-probability is asked for.
    """

    async def tell(
        self, key: Key, sampling: dict[str, Any]
    ) -> tuple[dict[str, Any], list[int], list[int]]:
        from vllm import SamplingParams

        self.sampling, seed, ids = sampling, key[2], []
        ask = self.llm.generate

        async def listening(*of: Any, **how: Any) -> AsyncIterator[Any]:
            async for result in ask(*of, **how):
                ids[:] = result.outputs[0].token_ids
                assert type(result.outputs[0].logprobs).__name__ == "FlatLogprobs"
                yield result

        self.llm.generate = listening
        told = await self.generate(key, PROMPT, seed, False)
        self.llm.generate = ask
        prompt = {"prompt_token_ids": PROMPT}
        async for result in ask(prompt, SamplingParams(seed=seed, **sampling), "silent"):
            silent = list(result.outputs[0].token_ids)
        return told, ids, silent


def logprob(model: Path, ids: list[int], temperature: float, top_p: float) -> float:
    """The mean log-probability of tokens after PROMPT, by transformers."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.inference_mode():
        loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        logits = loaded(torch.tensor([PROMPT + ids])).logits[0, len(PROMPT) - 1 : -1]
        logits = logits / (temperature or 1)
        probabilities, order = logits.softmax(-1).sort(descending=True)
        beyond = probabilities.cumsum(-1) - probabilities >= top_p
        logits[beyond.gather(-1, order.argsort(-1))] = -torch.inf
        chosen = logits.log_softmax(-1).gather(-1, torch.tensor(ids)[:, None])
    return float(chosen.mean())


def test_mean_logprob_is_of_the_distribution_that_is_sampled_and_changes_no_token(
    line: Line, arguments: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_actor, "Engine", Telling)
    with ray_session(cpus=1) as ray:
        actor, _ = start(ray, tmp_path / "log", arguments, AMPLE)
        for temperature, top_p in ((1.0, 1.0), (0.6, 1.0), (0.6, 0.95), (0.0, 0.95)):
            sampling = {"temperature": temperature, "top_p": top_p, "max_tokens": 200}
            for k in range(2):
                told, ids, silent = ray.get(actor.tell.remote(("s", "p", k), sampling))
                assert ids == silent and told["tokens"] == len(ids) > 1
                wanted = logprob(line.export(), ids, temperature, top_p if temperature else 1.0)
                assert told["mean_logprob"] == pytest.approx(wanted, abs=1e-3)


def depths(log: Path) -> list[int]:
    """How many processes are between Ray's daemon and each that an engine's core runs in, by what
    the core wrote.

    0 for the actor itself, 1 for a process that the actor started.
    """
    pids = sorted(set(re.findall(r"\(EngineCore pid=(\d+)\)", log.read_text())))
    ancestors = [[process.name() for process in psutil.Process(int(pid)).parents()] for pid in pids]
    return [names.index("raylet") for names in ancestors]


@pytest.mark.parametrize(("device", "stock"), [("cpu", "Scheduler"), ("cuda", "AsyncScheduler")])
def test_the_scheduler_is_the_one_that_vllm_takes_there(device: str, stock: str) -> None:
    """vLLM lets a scheduler plan ahead only where it is asked for, and one that plans ahead has to
    be asked for it.
    """
    from transformers import Qwen3Config
    from vllm.config import SchedulerConfig

    arguments = vllm_actor.arguments(
        Qwen3Config(), Model("m", Path("t"), "auto"), replace(ENGINE, device=device), context=64
    )
    names = ("scheduler_cls", "async_scheduling", "watermark")
    config = SchedulerConfig.default_factory(**{name: arguments[name] for name in names})
    ours = config.get_scheduler_cls()
    config.scheduler_cls = None
    assert config.get_scheduler_cls().__name__ == stock and issubclass(
        ours, config.get_scheduler_cls()
    )
