"""Real Ray actors that die and hang at will, in the place of engines, under the real driver."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.errors import StageFailed
from common.ray_session import ray_session
from common.records import Key
from eval.generation import driver, hang_detector
from eval.generation.driver import Driver
from eval.generation.engines import Fleet
from eval.generation.hang_detector import Pulse
from eval.generation.scheduler import Scheduler

KEYS = [("s", str(p), k) for p in range(6) for k in range(5)]
ONCE, ALWAYS = ("s", "2", 3), ("s", "4", 1)


class Victim:
    """Answers as an engine does, and comes to harm as it is told; what happens once leaves a mark
    in ``folder``.
    """

    def __init__(self, name: str, folder: Path, harm: dict[Key, str]) -> None:
        self.name, self.folder, self.harm = name, folder, harm

    async def start(self) -> int:
        if "start" in self.harm.values():
            raise ValueError("no such dtype")
        return 10_000

    async def beat(self) -> dict[Key, int]:
        return {}

    async def generate(self, key: Key, prompt: list[int], seed: int, late: bool) -> dict[str, Any]:
        await asyncio.sleep(0.02)
        mark = self.folder / "_".join(map(str, key))
        harm = self.harm.get(key)
        if harm == "always" or (harm and not mark.exists()):
            mark.touch()
            if harm == "raise":
                raise RuntimeError("vLLM failed")
            os.kill(os.getpid(), signal.SIGSTOP if harm == "hang" else signal.SIGKILL)
        return {
            "text": "",
            "tokens": 3,
            "finish_reason": "stop",
            "engine": self.name,
            "seconds": 0.02,
        }


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    with ray_session(cpus=2) as ray:
        yield ray


def work(ray: Any, folder: Path, harm: dict[Key, str], finished: Counter[Key]) -> list[str]:
    """What the engines were said to do."""
    said: list[str] = []
    fleet = Fleet(
        ray, lambda name: ray.remote(Victim).options(max_concurrency=100).remote(name, folder, harm)
    )
    scheduler = Scheduler(dict.fromkeys(KEYS, 1), [], budget=10, concurrency=4)
    prompts, seeds = {key: [1] for key in KEYS}, {key: i for i, key in enumerate(KEYS)}
    at_work = Driver(
        fleet,
        scheduler,
        Pulse(10),
        prompts,
        seeds,
        lambda name: folder / f"{name}.log",
        said.append,
        "as set",
    )
    for rollout in at_work.run(["a", "b"]):
        assert rollout.seed == seeds[rollout.key]
        finished[rollout.key] += 1
    return said


def test_engines_are_said_to_start_and_to_run(
    ray: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said = work(ray, tmp_path, {}, Counter())
    assert said[0] == "starting 2 engines"
    assert any(text.startswith(("1 of 2 engines", "2 engines")) for text in said[1:])
    told = [line for line in capfd.readouterr().err.splitlines() if "as set" in line]
    assert told == ["2 engines, each: KV cache of 10,000 tokens, as set"]


@pytest.mark.parametrize("harm", ["kill", "raise", "hang"])
def test_a_dead_or_hung_engine_is_replaced(
    ray: Any,
    tmp_path: Path,
    harm: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(driver, "BEAT_SECONDS", 0.2)
    monkeypatch.setattr(hang_detector, "SILENCES", 1)
    finished: Counter[Key] = Counter()
    work(ray, tmp_path, {ONCE: harm}, finished)
    assert finished == dict.fromkeys(KEYS, 1)
    said = capfd.readouterr().err
    assert said.count("and is restarted: see") >= 1
    assert harm != "hang" or "no token for" in said


def test_what_kills_engines_twice_is_named_and_never_wrong(ray: Any, tmp_path: Path) -> None:
    finished: Counter[Key] = Counter()
    with pytest.raises(
        StageFailed,
        match=r"missing rollouts: 1, because .*: s/4/1\. See .*engine-\*.log.*tries these again",
    ):
        work(ray, tmp_path, {ALWAYS: "always"}, finished)
    assert finished == {key: 1 for key in KEYS if key != ALWAYS}


def test_engines_that_cannot_start_end_the_stage(ray: Any, tmp_path: Path) -> None:
    with pytest.raises(
        StageFailed, match=r"the last engine, died \(.*no such dtype\): see .*\.log\. Finished"
    ):
        work(ray, tmp_path, {ONCE: "start"}, Counter())
