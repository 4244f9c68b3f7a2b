"""Makespan of an evaluation: the real scheduler against static splits and against who knows every
length.

    python -m tests.bench.bench_eval        replays on 1 to 64 fake engines, and on 2 real ones
    python -m tests.bench.bench_eval TRACES ENGINES     so many traces, on up to ENGINES fake ones

Two cases compare eval.concurrency=null with 64 on the same traces: 100 x 16 long rollouts (T0) and
1,319 x 1 short ones (GSM8K). The others have long ones and null:
100 problems x 16 rollouts with a median of 11.6K tokens and 37 % at the budget of 16,384;
log-lengths of two rollouts of a problem correlate by 0.75 (an assumption: most of the spread is the
problem's). Figures are means over traces. `limit` is the clairvoyant longest-first schedule; beside
it is one that knows no more than each problem's mean length, and the bound that no schedule can
beat. The fake engines are described in decode.py. On two real vLLM engines on this machine a trace
scaled down is replayed in both ways: each rollout is made to end at its length.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial
from itertools import product
from math import inf, isclose, sqrt
from pathlib import Path
from statistics import fmean, stdev
from tempfile import TemporaryDirectory
from typing import Any

from common.ray_session import ray_session
from common.records import Key
from eval.generation import vllm_actor
from eval.generation.driver import Driver
from eval.generation.engines import Fleet
from eval.generation.hang_detector import Pulse
from eval.generation.scheduler import Scheduler
from eval.generation.settings import EngineSettings, Model
from tests.bench.decode import (
    A100,
    GPUS,
    H200,
    LONG,
    SHORT,
    Gpu,
    by_problem,
    by_sample,
    longest_first,
    lower_bound,
    replay,
    static,
    told_means,
    trace,
)
from tests.bench.table import Result, publish
from tests.conftest import environment
from trainer.planning.rl_time import LEAST_REQUESTS

ENGINES, CORRELATION = (1, 2, 4, 8, 16, 32, 64), 0.75
MOST = 1.10
"""Limit of our time, as a multiple of the clairvoyant schedule's."""
REAL = {"problems": 24, "n": 8, "budget": 384, "concurrency": 16}
PREPARE = """
from trainer.recipe import load as configs
from trainer.run import frozen_config
from trainer.run.base_model import materialise
config = configs.load("tiny", ["data.arithmetic.problems=400", "data.spare_share=0"])
frozen_config.start(config)
materialise(config)
"""


STATIC = {"static by problem": by_problem, "static by sample": by_sample}
PEERS = STATIC | {"told each problem's mean": told_means}
SETS = {"T0": (100, 16, LONG), "GSM8K": (1319, 1, SHORT)}
"""Problems, rollouts of each, and their lengths."""


def makespans(gpu: Gpu, count: int, seed: int) -> dict[str, float]:
    """Seconds that every schedule of one trace takes on ``count`` engines."""
    lengths = trace(100, 16, CORRELATION, seed)
    splits = PEERS | {"clairvoyant": longest_first}
    seconds = {name: static(split(lengths, count), lengths, gpu) for name, split in splits.items()}
    return seconds | {
        "ours": replay(lengths, count, gpu),
        "lower bound": lower_bound(lengths, count, gpu),
    }


def null_and_64(gpu: Gpu, name: str, count: int, seed: int) -> tuple[float, float]:
    """Seconds of one trace of a set with eval.concurrency null and 64."""
    problems, n, spread = SETS[name]
    lengths = trace(problems, n, CORRELATION, seed, spread)
    return replay(lengths, count, gpu), replay(lengths, count, gpu, LEAST_REQUESTS)


def by_slots(gpu: Gpu, pool: Executor, traces_each: int, most_engines: int) -> Iterator[Result]:
    """null beside 64 on up to ``most_engines`` engines of one kind."""
    for name, count in product(SETS, ENGINES[::2]):
        if count <= most_engines:
            traces = list(pool.map(partial(null_and_64, gpu, name, count), range(traces_each)))
            null, fixed = (fmean(seconds) for seconds in zip(*traces, strict=True))
            case = f"{name}, {gpu.name}, {count} engines: null"
            yield Result(case, "makespan", "s", null, fixed, "64 requests per engine")


def simulated(
    gpu: Gpu, pool: Executor, traces_each: int, most_engines: int
) -> tuple[list[Result], list[str]]:
    """Up to ``most_engines`` engines of one kind, and what misses an aim."""
    results, missed = [], []
    for count in (count for count in ENGINES if count <= most_engines):
        case = f"{gpu.name}, {count} engines"
        traces = list(pool.map(partial(makespans, gpu, count), range(traces_each)))
        mean = {name: fmean(seconds[name] for seconds in traces) for name in traces[0]}
        for name in (*PEERS, "lower bound"):
            results.append(
                Result(case, "makespan", "s", mean["ours"], mean[name], name, mean["clairvoyant"])
            )
        for name, most in (("clairvoyant", MOST), *((name, 1.0) for name in STATIC)):
            ratio = mean["ours"] / mean[name]
            if ratio > most and not isclose(ratio, most):
                error = stdev(seconds["ours"] / seconds[name] for seconds in traces) / sqrt(
                    traces_each
                )
                missed.append(
                    f"{case} {ratio:.3f} of {name}, limit {most}, standard error {error:.3f}"
                )
    return results, missed


class Traced(vllm_actor.Engine):
    """An engine whose rollouts end at given lengths."""

    def __init__(self, *arguments: Any, lengths: Mapping[Key, int]) -> None:
        super().__init__(*arguments)
        self.lengths = lengths

    async def start(self) -> int:
        """Ready once it has generated: the first steps load and build what the later ones use."""
        capacity = await super().start()
        first = list(self.lengths)[: REAL["concurrency"]]
        await asyncio.gather(*(self.generate(key, [5] * 8, 0, False) for key in first))
        return capacity

    async def generate(self, key: Key, prompt: list[int], seed: int, late: bool) -> dict[str, Any]:
        self.sampling = {"temperature": 1.0, "ignore_eos": True, "max_tokens": self.lengths[key]}
        return await super().generate(key, prompt, seed, late)


class Timed(Scheduler):
    """Begins when both engines are up, and remembers when that was."""

    def assign(self) -> Iterator[tuple[str, Key, bool]]:
        if len(self._engines) < 2:
            return iter(())
        self.begun = getattr(self, "begun", time.monotonic())
        return self.choose()

    def choose(self) -> Iterator[tuple[str, Key, bool]]:
        return super().assign()


class Static(Timed):
    """Whole problems dealt out beforehand."""

    def choose(self) -> Iterator[tuple[str, Key, bool]]:
        if self._fresh:
            names = sorted(self._engines)
            self.parts = dict(
                zip(names, map(deque, by_problem(dict.fromkeys(self._prompts, 1), 2)), strict=True)
            )
            self._fresh.clear()
            self._lost = [key for part in self.parts.values() for key in part]
        now = self._outlook()
        for name, part in self.parts.items():
            while part and len(self._engines[name].running) < now.slots[name]:
                self._lost.remove(part[0])
                yield self._start(name, part.popleft(), now)


def real() -> Result:
    """Two engines on this machine."""
    scale = LONG.budget / REAL["budget"]
    whole = trace(REAL["problems"], REAL["n"], CORRELATION, 0)
    lengths = {key: max(1, round(tokens / scale)) for key, tokens in whole.items()}
    seconds: dict[type[Timed], float] = {}
    with TemporaryDirectory() as name:
        folder = Path(name)
        for command in (
            [
                "-m",
                "warmstart",
                "data",
                "tiny",
                "data.arithmetic.problems=400",
                "data.spare_share=0",
            ],
            ["-c", PREPARE],
        ):
            subprocess.run([sys.executable, *command], cwd=folder, env=environment(), check=True)
        for kind in (
            Timed,
            Static,
            Static,
            Timed,
        ):  # the faster of two: what else the machine does comes and goes
            scheduler = kind(dict.fromkeys(lengths, 8), [], REAL["budget"], REAL["concurrency"])
            seconds[kind] = min(seconds.get(kind, inf), _run(folder, scheduler, lengths))
    return Result(
        "2 real engines", "makespan", "s", seconds[Timed], seconds[Static], "static by problem"
    )


def _run(folder: Path, scheduler: Timed, lengths: Mapping[Key, int]) -> float:
    from transformers import AutoConfig

    model = folder / "runs" / "tiny" / "base"
    arguments = vllm_actor.arguments(
        AutoConfig.from_pretrained(model),
        Model(str(model), folder / "data/tiny/tokenizer", "auto"),
        EngineSettings("cpu", 2, tensor_parallel=1, concurrency=REAL["concurrency"]),
        context=REAL["budget"] + 8,
    )
    cores = max(1, len(os.sched_getaffinity(0)) // 2)
    with ray_session(cpus=2) as ray:
        remote = ray.remote(Traced).options(
            num_cpus=cores,
            max_concurrency=10_000,
            runtime_env={"env_vars": vllm_actor.environment("cpu", cores, 1)},
        )
        fleet = Fleet(
            ray,
            lambda name: remote.remote(
                name, folder / f"{name}.log", arguments, {}, lengths=lengths
            ),
        )
        prompts, seeds = {key: [5] * 8 for key in lengths}, dict.fromkeys(lengths, 0)
        driver = Driver(
            fleet,
            scheduler,
            Pulse(REAL["budget"]),
            prompts,
            seeds,
            lambda name: folder / f"{name}.log",
            print,
            "as in an evaluation",
        )
        made = {rollout.key: rollout.tokens for rollout in driver.run(["engine-0", "engine-1"])}
        assert made == lengths
        return time.monotonic() - scheduler.begun


def main() -> None:
    """Measures all cases."""
    results: list[Result] = []
    missed: list[str] = []
    simulation = [int(word) for word in sys.argv[1:]]
    traces_each, most_engines = simulation or (24, max(ENGINES))
    with ProcessPoolExecutor() as pool:
        for gpu in GPUS:
            of_gpu, missed_by_gpu = simulated(gpu, pool, traces_each, most_engines)
            results += of_gpu
            missed += missed_by_gpu
        for gpu in (A100, H200):
            results += by_slots(gpu, pool, traces_each, most_engines)
    publish("bench-eval", results if simulation else [*results, real()])
    for what in missed:
        print(f"  missed: {what}")


if __name__ == "__main__":
    main()
