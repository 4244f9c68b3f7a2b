"""Assigns rollouts to engines: one queue for all engines, and near the end the longest expected
rollouts first.

While many rollouts are left, file order is best: it mixes long rollouts, which fill an engine's KV
cache, with short ones, which fill its slots, and the order does not matter yet. Near the end the
longest rollouts must start first. The last ones to start are late: of these the longest is
preempted when a KV cache is full (``preemption``).

Nothing here depends on Ray, vLLM or a clock, so a simulation runs the same code as the engines.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil
from statistics import fmean

from common.records import Key

OVERCOMMIT = 3
"""Expected final tokens in flight per token of KV cache. It is above 1 because running rollouts
hold fewer tokens than at their end, and a queue within an engine keeps its cache full. It is not
far above 1 because a rollout that waits there cannot move to another engine.
"""
LONGEST_FIRST, LATE = 3.5, 1.6
"""Two end-game thresholds, in unfinished rollouts per engine slot: at or below the first, the
longest expected start first; at or below the second, rollouts that start are late.
"""
SUSPECTS = 8
"""Maximum number of suspects (rollouts that were on an engine that died) that run together on one
engine.
"""
UNHEARD = 1024
"""Maximum number of tokens that a rollout may have generated since its last count."""

ProblemKey = tuple[str, str]
"""(set, problem id)"""


@dataclass
class _Lengths:
    """Statistics of the rollouts of one problem, or of all problems: how many ended, and the total
    tokens so far.
    """

    ended: int = 0
    tokens: int = 0


@dataclass
class _Running:
    engine: str
    tokens: int = 0


@dataclass
class _Engine:
    capacity: int
    running: set[Key] = field(default_factory=set)


class Scheduler:
    """Assigns rollouts to engines that join, leave and die; each rollout is assigned until it has
    finished once.

    A rollout in flight on an engine that dies becomes a suspect until it has certainly exceeded the
    length that it had then. At most ``SUSPECTS`` suspects run together on an engine; one that was
    on two engines that died runs as the only suspect on an engine. If an engine with a single
    suspect dies, that suspect has been on two engines that died, and is set aside.
    """

    def __init__(
        self,
        prompts: Mapping[Key, int],
        finished: Iterable[tuple[Key, int]],
        budget: int,
        concurrency: int,
        at_least: int | None = None,
    ) -> None:
        """``prompts`` has the prompt's tokens for each rollout to generate, ``finished`` earlier
        rollouts with their tokens; ``budget`` is the maximum number of tokens of a rollout,
        ``concurrency`` the maximum number of rollouts per engine at a time. With ``at_least`` an
        engine has as many slots as its KV cache holds rollouts of the expected length, from
        ``at_least`` to ``concurrency``.
        """
        self.set_aside: list[Key] = []
        self.awaited = 0
        """Number of engines that are about to join; their share of the rollouts is held back."""
        self._prompts, self._budget, self._most = prompts, budget, concurrency
        self._least = concurrency if at_least is None else at_least
        self._prompt = fmean(prompts.values())
        self._engines: dict[str, _Engine] = {}
        self._running: dict[Key, _Running] = {}
        self._fresh: dict[ProblemKey, deque[Key]] = {}
        for key in prompts:
            self._fresh.setdefault(key[:2], deque()).append(key)
        self._all, self._of = _Lengths(), {problem: _Lengths() for problem in self._fresh}
        self._begun: Counter[ProblemKey] = Counter()
        self._lost: list[Key] = []
        self._deaths: Counter[Key] = Counter()
        self._reached: dict[Key, int] = {}
        for key, tokens in finished:
            if key[:2] in self._of:
                self._begun[key[:2]] += 1
                self._count(key, tokens, ended=True)

    @property
    def done(self) -> bool:
        """Whether no rollout is left to assign or to wait for."""
        return not self._fresh and not self._lost and not self._running

    @property
    def tokens(self) -> int:
        """Tokens of all rollouts, finished and running, as of their last counts."""
        return self._all.tokens

    def running(self, engine: str) -> set[Key]:
        """Returns the rollouts in flight on an engine that has joined."""
        return self._engines[engine].running

    def join(self, engine: str, capacity: int) -> None:
        """Adds an engine; ``capacity`` is the size of its KV cache in tokens."""
        assert engine not in self._engines
        self._engines[engine] = _Engine(capacity)

    def leave(self, engine: str) -> list[Key]:
        """Removes an engine that died and requeues its rollouts, except for those set aside, which
        are returned.
        """
        lost = sorted(self._engines[engine].running)
        suspects = [key for key in lost if self._is_suspect(key)]
        guilty = suspects if len(suspects) == 1 else []
        del self._engines[engine]
        for key in lost:
            tokens = self._running.pop(key).tokens
            self._count(key, -tokens)
            self._deaths[key] = self._deaths[key] + 1 if key in suspects else 1
            self._reached[key] = tokens
        self._lost += [key for key in lost if key not in guilty]
        self.set_aside += guilty
        return guilty

    def progress(self, key: Key, tokens: int) -> None:
        """Records that a running rollout has ``tokens`` tokens so far."""
        running = self._running[key]
        self._count(key, tokens - running.tokens)
        running.tokens = tokens

    def finish(self, key: Key, tokens: int) -> None:
        """Records that a running rollout ended with ``tokens`` tokens."""
        self.progress(key, tokens)
        self._count(key, 0, ended=True)
        self._engines[self._running.pop(key).engine].running.remove(key)

    def assign(self) -> Iterator[tuple[str, Key, bool]]:
        """Yields each (engine, rollout, whether it is late) to start now, on the engine with the
        fewest expected remaining tokens among those with room. Rollouts of dead engines start
        first; ``_next`` has the order of the others.
        """
        if not self._engines or not (self._fresh or self._lost):
            return
        now = self._outlook()
        for key in list(self._lost):
            if name := self._place(key, now):
                self._lost.remove(key)
                yield self._start(name, key, now)
        while self._fresh:
            problem = self._next(now)
            name = self._place(self._fresh[problem][0], now)
            if name is None:
                return
            key = self._fresh[problem].popleft()
            if not self._fresh[problem]:
                del self._fresh[problem]
            self._begun[problem] += 1
            yield self._start(name, key, now)

    def _next(self, now: _Outlook) -> ProblemKey:
        """Returns the problem whose next rollout should start: while many rollouts are left, the
        first in file order; near the end one without any rollout, then the longest expected. As
        soon as all unfinished rollouts fit into the slots, it is the longest expected, whether the
        problem has a rollout or not.
        """
        if now.waves > LONGEST_FIRST:
            return next(iter(self._fresh))
        if now.waves <= 1:
            return max(self._fresh, key=now.expected.__getitem__)
        for problem in self._fresh:
            if not self._begun[problem]:
                return problem
        return min(self._fresh, key=lambda p: (-now.expected[p], self._begun[p]))

    def _left(self) -> int:
        """Returns the number of unfinished rollouts."""
        return sum(map(len, self._fresh.values())) + len(self._lost) + len(self._running)

    def _outlook(self) -> _Outlook:
        """Returns the expectations at this moment. An engine that is about to join counts as the
        mean of those that have joined.
        """
        mean = self._mean()
        expected = {problem: self._expected(problem, mean) for problem in self._of}
        left, count = self._left(), len(self._engines) + self.awaited
        slots = {name: self._slots(engine.capacity, mean) for name, engine in self._engines.items()}
        waves = left / (fmean(slots.values()) * count)
        if self.awaited:
            slots = {name: min(most, ceil(left / count)) for name, most in slots.items()}
        now = _Outlook(expected, {name: _Load() for name in self._engines}, slots, waves)
        for key, running in self._running.items():
            now.loads[running.engine].add(
                key, self._prompts[key], running.tokens, self._final(key, now)
            )
        return now

    def _start(self, engine: str, key: Key, now: _Outlook) -> tuple[str, Key, bool]:
        self._engines[engine].running.add(key)
        self._running[key] = _Running(engine)
        now.loads[engine].add(key, self._prompts[key], 0, self._final(key, now))
        return engine, key, now.waves <= LATE

    def _place(self, key: Key, now: _Outlook) -> str | None:
        """Returns the engine that ``key`` should start on; None when it has to wait."""
        tokens = self._prompts[key] + now.expected[key[:2]]
        names = [
            name
            for name, engine in self._engines.items()
            if len(engine.running) < now.slots[name]
            and (
                not engine.running or now.loads[name].held + tokens <= OVERCOMMIT * engine.capacity
            )
            and self._may_join(key, name)
        ]
        return min(
            names,
            key=lambda name: (now.loads[name].coming, now.loads[name].siblings[key[:2]]),
            default=None,
        )

    def _may_join(self, key: Key, engine: str) -> bool:
        """Returns whether ``key`` may run beside the suspects on an engine; always true if no
        engine died under it.
        """
        if not self._deaths[key]:
            return True
        suspects = [k for k in self._engines[engine].running if self._is_suspect(k)]
        alone = any(self._deaths[k] > 1 for k in (key, *suspects))
        return len(suspects) < (1 if alone else SUSPECTS)

    def _is_suspect(self, key: Key) -> bool:
        return self._deaths[key] > 0 and self._running[key].tokens <= self._reached[key] + UNHEARD

    def _mean(self) -> float:
        """Returns the expected tokens of any rollout: all tokens so far over the number of ended
        rollouts, the maximum-likelihood mean of exponential lengths of which some are censored
        (Lawless, Statistical Models and Methods for Lifetime Data, 2003, section 4.1). The budget
        counts as one more ended rollout.
        """
        return min(self._budget, (self._budget + self._all.tokens) / (1 + self._all.ended))

    def _expected(self, problem: ProblemKey, mean: float) -> float:
        """Returns the same for a problem's rollouts; the ``mean`` of all problems counts as one
        more ended rollout.
        """
        of = self._of[problem]
        return min(self._budget, (mean + of.tokens) / (1 + of.ended))

    def _slots(self, capacity: int, mean: float) -> int:
        """Returns the maximum number of rollouts at a time on an engine whose KV cache holds
        ``capacity`` tokens, with rollouts of ``mean`` tokens.
        """
        holds = int(capacity / (self._prompt + mean))
        return min(max(holds, self._least), self._most)

    def _final(self, key: Key, now: _Outlook) -> float:
        """Returns the expected final tokens: those so far plus a new rollout's, since lengths are
        exponential.
        """
        return min(self._budget, self._running[key].tokens + now.expected[key[:2]])

    def _count(self, key: Key, tokens: int, ended: bool = False) -> None:
        for lengths in (self._all, self._of[key[:2]]):
            lengths.tokens += tokens
            lengths.ended += ended


@dataclass
class _Load:
    """An engine's rollouts: expected tokens in its cache at their ends, expected remaining tokens,
    rollouts per problem.
    """

    held: float = 0.0
    coming: float = 0.0
    siblings: Counter[ProblemKey] = field(default_factory=Counter)

    def add(self, key: Key, prompt: int, tokens: int, final: float) -> None:
        self.held += prompt + final
        self.coming += final - tokens
        self.siblings[key[:2]] += 1


@dataclass
class _Outlook:
    """Expectations at one moment: tokens of a rollout by problem; load and maximum number of
    rollouts by engine.
    """

    expected: dict[ProblemKey, float]
    loads: dict[str, _Load]
    slots: dict[str, int]
    waves: float
    """Unfinished rollouts per engine slot."""
