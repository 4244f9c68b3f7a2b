"""Fake engines that decode at a modelled rate, and the schedules that a makespan is compared with.

A step gives every running sequence a token, and its time is that of reading the weights, of each
sequence's sampling, and of reading the keys and values of all tokens in the cache. When the cache
is full, the last sequence that came waits until there is room, as with stock vLLM, and is then read
in again; late ones wait by the rule of :mod:`eval.generation.preemption`.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean

import numpy as np

from common.records import Key
from eval.generation.driver import BEAT_SECONDS
from eval.generation.hang_detector import Pulse
from eval.generation.scheduler import Scheduler
from eval.generation.vllm_actor import EARLY, SPARE
from trainer.planning.rl_time import LEAST_REQUESTS, MOST_REQUESTS

PROMPT = 200
LOADING = 60.0

Lengths = dict[Key, int]


@dataclass(frozen=True)
class Spread:
    """Lognormal lengths by their median, in tokens, and the share that reaches the budget."""

    median: int
    budget: int
    at_budget: float


LONG = Spread(11_600, 16_384, 0.37)
SHORT = Spread(250, 4_096, 0.005)
"""Long ones as published for T0; short ones as assumed for GSM8K."""


@dataclass(frozen=True)
class Gpu:
    """One engine of a 4B model (8 GB of weights, 147,456 bytes of keys and values a token), in
    seconds and tokens.
    """

    name: str
    step: float
    """Seconds of a step without sequences: reading the weights once, and launching kernels."""
    sequence: float
    """Additional seconds per sequence in it."""
    read: float
    """Additional seconds per token in the cache."""
    prefill: float
    """Seconds per token of a prompt, or of a preempted sequence that is recomputed."""
    cache: int
    """Tokens."""


A100 = Gpu("A100-40GB", step=9e-3, sequence=7e-5, read=1.1e-7, prefill=1.2e-4, cache=160_000)
H200 = Gpu("H200-141GB", step=5e-3, sequence=5e-5, read=3.8e-8, prefill=5e-5, cache=800_000)
GPUS = (
    Gpu("by batch alone", step=6e-3, sequence=1.4e-4, read=0.0, prefill=5e-5, cache=400_000),
    Gpu("H100-80GB", step=6e-3, sequence=5e-5, read=5.5e-8, prefill=5e-5, cache=400_000),
    A100,
)
"""Reading is at 80 % of the data sheets' memory bandwidth; the rest is assumed. The first one's
steps take as long for short rollouts as for long ones.
"""


def trace(problems: int, n: int, correlation: float, seed: int, of: Spread = LONG) -> Lengths:
    """Lengths of ``n`` rollouts per problem; ``correlation`` is that of log-lengths of two rollouts
    of one problem.
    """
    sigma = math.log(of.budget / of.median) / NormalDist().inv_cdf(1 - of.at_budget)
    random = np.random.default_rng(seed)
    common, own = random.standard_normal((problems, 1)), random.standard_normal((problems, n))
    logs = math.log(of.median) + sigma * (
        math.sqrt(correlation) * common + math.sqrt(1 - correlation) * own
    )
    lengths = np.minimum(np.exp(logs).round(), of.budget).astype(int)
    return {("s", str(p), k): int(lengths[p, k]) for p in range(problems) for k in range(n)}


class FakeEngine:
    """An engine at ``now`` seconds that has made ``steps`` steps and runs at most ``slots``
    rollouts at a time; tokens are counted as real numbers.
    """

    def __init__(self, gpu: Gpu, slots: int) -> None:
        self.gpu, self.slots = gpu, slots
        self.now = self.steps = self.held = self.stall = 0.0
        self.running: dict[
            Key, tuple[float, float]
        ] = {}  # steps at its first token and at its last
        self.waiting: list[
            tuple[tuple[float, int], Key, float, float]
        ] = []  # rank, length, tokens made
        self.came: dict[
            Key, tuple[bool, int]
        ] = {}  # whether it was late, and its place in the order of coming
        self.ends: list[tuple[float, Key]] = []

    def submit(self, key: Key, length: float, late: bool = False) -> None:
        """Takes a rollout, at once or into its own queue."""
        self.came[key] = late, len(self.came)
        self._wait(key, length, 0.0)
        self._admit()

    def tokens(self, key: Key) -> float:
        """Tokens that a rollout has by now."""
        if key in self.running:
            return self.steps - self.running[key][0]
        return next(made for _, name, _, made in self.waiting if name == key)

    def next(self) -> float:
        """When something happens next: a rollout ends or the cache is full."""
        if not self.running:
            return math.inf
        until = min(self.ends[0][0] - self.steps, (self.gpu.cache - self.held) / len(self.running))
        return self.now + self.stall + self._seconds(max(0.0, until))

    def advance(self, now: float) -> list[tuple[Key, float]]:
        """Decodes until ``now``, not beyond ``next``; returns the rollouts that ended, with their
        lengths.
        """
        seconds = now - self.now - self.stall
        self.now, self.stall = now, max(0.0, -seconds)
        if self.running and seconds > 0:
            made = self._made(seconds)
            self.steps += made
            self.held += made * len(self.running)
        ended = []
        while self.ends and self.ends[0][0] <= self.steps + 1e-6:
            _, key = heapq.heappop(self.ends)
            ended.append((key, self._remove(key)))
        if not ended and len(self.running) > 1 and self.held >= self.gpu.cache - 1e-3:
            key = max(self.running, key=lambda key: self._rank(key, self.tokens(key)))
            length = self.running[key][1] - self.running[key][0]
            made = self._remove(key)
            self.ends = [end for end in self.ends if end[1] != key]
            heapq.heapify(self.ends)
            self._wait(key, length, made)
        self._admit()
        return ended

    def _seconds(self, steps: float) -> float:
        """Returns the seconds of the next ``steps`` steps, over which the cache fills evenly."""
        return steps * (self._step() + self._growth() * steps)

    def _made(self, seconds: float) -> float:
        """Steps in that time: the inverse of ``_seconds``, in the form that does not cancel."""
        step = self._step()
        return 2 * seconds / (step + math.sqrt(step * step + 4 * self._growth() * seconds))

    def _step(self) -> float:
        return self.gpu.step + self.gpu.sequence * len(self.running) + self.gpu.read * self.held

    def _growth(self) -> float:
        return self.gpu.read * len(self.running) / 2

    def _rank(self, key: Key, made: float) -> tuple[float, int]:
        """The highest waits."""
        late, place = self.came[key]
        return made if late else EARLY, place

    def _wait(self, key: Key, length: float, made: float) -> None:
        heapq.heappush(self.waiting, (self._rank(key, made), key, length, made))

    def _remove(self, key: Key) -> float:
        begun, _ = self.running.pop(key)
        self.held -= PROMPT + self.steps - begun
        return self.steps - begun

    def _admit(self) -> None:
        while self.waiting and len(self.running) < self.slots:
            _, key, length, made = self.waiting[0]
            if self.running and self.held + PROMPT + made > (1 - SPARE) * self.gpu.cache:
                return
            heapq.heappop(self.waiting)
            self.running[key] = (self.steps - made, self.steps - made + length)
            heapq.heappush(self.ends, (self.steps - made + length, key))
            self.held += PROMPT + made
            self.stall += self.gpu.prefill * (PROMPT + made)


def static(parts: Iterable[Sequence[Key]], lengths: Lengths, gpu: Gpu) -> float:
    """Seconds until all engines, of ``LEAST_REQUESTS`` slots, are done, each with its part from the
    beginning.
    """
    last = 0.0
    for part in parts:
        engine = FakeEngine(gpu, LEAST_REQUESTS)
        for key in part:
            engine.submit(key, lengths[key])
        while (at := engine.next()) < math.inf:
            engine.advance(at)
        last = max(last, engine.now)
    return last


def replay(lengths: Lengths, engines: int, gpu: Gpu, most: int = MOST_REQUESTS) -> float:
    """Seconds until the scheduler has had all rollouts made by fake engines, none of which seems to
    hang. An engine has as many slots as its cache holds, from ``LEAST_REQUESTS`` to ``most``.
    """
    budget = max(lengths.values())
    pulse = Pulse(budget)
    fakes = {f"engine-{i}": FakeEngine(gpu, most) for i in range(engines)}
    scheduler = Scheduler(dict.fromkeys(lengths, PROMPT), [], budget, most, LEAST_REQUESTS)
    for name in fakes:
        scheduler.join(name, gpu.cache)
        pulse.begin(name, -LOADING)
        pulse.up(name, 0.0)
    now, beat = 0.0, BEAT_SECONDS
    events = [(0.0, "")]
    due = dict.fromkeys(fakes, math.inf)

    def plan(name: str) -> None:
        due[name] = fakes[name].next()
        if due[name] < math.inf:
            heapq.heappush(events, (due[name], name))

    def finish(name: str, ended: list[tuple[Key, float]]) -> None:
        for key, tokens in ended:
            scheduler.finish(key, round(tokens))
            pulse.finish(name, key, round(tokens), now)

    while not scheduler.done:
        for name, key, late in scheduler.assign():
            finish(name, fakes[name].advance(now))
            pulse.ask(name, key, now)
            fakes[name].submit(key, lengths[key], late)
            plan(name)
        at, name = events[0]
        if at > beat:
            now, beat = beat, beat + BEAT_SECONDS
            for name, fake in fakes.items():
                finish(name, fake.advance(now))
                tokens = {key: int(fake.tokens(key)) for key in scheduler.running(name)}
                pulse.hear(name, tokens, now)
                for key, count in tokens.items():
                    scheduler.progress(key, count)
                assert (why := pulse.hangs(name, now)) is None, why
                plan(name)
            continue
        heapq.heappop(events)
        if name and at == due[name]:
            now = at
            finish(name, fakes[name].advance(now))
            plan(name)
    return now


def by_problem(lengths: Lengths, engines: int) -> list[list[Key]]:
    """Whole problems dealt out to engines, as verl's chunks of a batch and lighteval's documents
    are.
    """
    problems = {problem: i for i, problem in enumerate(dict.fromkeys(key[:2] for key in lengths))}
    return [[key for key in lengths if problems[key[:2]] % engines == i] for i in range(engines)]


def by_sample(lengths: Lengths, engines: int) -> list[list[Key]]:
    """Rollouts dealt out one by one, as lm-eval's ranks take requests."""
    keys = list(lengths)
    return [keys[i::engines] for i in range(engines)]


def longest_first(lengths: Lengths, engines: int) -> list[list[Key]]:
    """Who knows all lengths: the longest goes to the engine with the fewest tokens, and so on (LPT;
    Graham, Bounds on multiprocessing timing anomalies, 1969).
    """
    parts: list[list[Key]] = [[] for _ in range(engines)]
    loads = [(0, i) for i in range(engines)]
    for key in sorted(lengths, key=lambda key: -lengths[key]):
        tokens, i = heapq.heappop(loads)
        parts[i].append(key)
        heapq.heappush(loads, (tokens + lengths[key], i))
    return parts


def told_means(lengths: Lengths, engines: int) -> list[list[Key]]:
    """Who knows each problem's mean length: as ``longest_first``, with that in a rollout's
    place.
    """
    of: dict[tuple[str, str], list[int]] = {}
    for key, tokens in lengths.items():
        of.setdefault(key[:2], []).append(tokens)
    return longest_first({key: round(fmean(of[key[:2]])) for key in lengths}, engines)


def lower_bound(lengths: Lengths, engines: int, gpu: Gpu) -> float:
    """No schedule takes less: the longest rollout alone, or all work spread evenly over batches as
    large as the cache (by the tokens that rollouts hold on average) and the slots allow.
    """
    tokens = np.array(list(lengths.values()), float)
    held = tokens * (PROMPT + tokens / 2)  # summed over a rollout's steps
    steps = max(held.sum() / gpu.cache, tokens.sum() / MOST_REQUESTS)
    work = (
        gpu.step * steps
        + gpu.sequence * tokens.sum()
        + gpu.read * held.sum()
        + gpu.prefill * PROMPT * len(tokens)
    )
    alone = tokens * (gpu.step + gpu.sequence) + gpu.read * held
    return float(max(work / engines, alone.max()))
