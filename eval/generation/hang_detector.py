"""Signs of life: an engine with work that makes no token for too long, or keeps one rollout for too long, hangs.

What is too long is measured, for a token takes milliseconds on one machine and seconds on another. Times are seconds
of one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Mapping

from common.records import Key

START_SECONDS = 1800.0
"""How long an engine may take to come up, at least."""
SILENCES = 10
"""An engine hangs when it is silent for so many times the longest silence of any engine, loading included."""
SLOWNESS = 4
"""A rollout hangs when it takes so many times as long as its whole budget at the mean pace of all rollouts, from when
another one of its engine last ended: until then it may have had to wait for room."""


class Pulse:
    """Signs of life of all engines. ``budget`` is the most tokens of a rollout."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._longest = 0.0
        self._ended = (0.0, 0)  # seconds and tokens of the rollouts that ended
        self._starting: dict[str, float] = {}
        self._heard: dict[str, float] = {}
        self._running: dict[str, dict[Key, tuple[float, int]]] = {}
        self._freed: dict[str, float] = {}  # when a rollout of it last ended

    def begin(self, engine: str, now: float) -> None:
        """An engine begins to load."""
        self._starting[engine] = now

    def up(self, engine: str, now: float) -> None:
        """It has loaded."""
        self._longest = max(self._longest, now - self._starting.pop(engine))
        self._running[engine] = {}

    def ask(self, engine: str, key: Key, now: float) -> None:
        """It is given a rollout to make."""
        if not self._running[engine]:
            self._heard[engine] = now
        self._running[engine][key] = (now, 0)

    def hear(self, engine: str, tokens: Mapping[Key, int], now: float) -> None:
        """It says how many tokens its rollouts have."""
        running = self._running[engine]
        moved = {key: count for key, count in tokens.items() if key in running and count > running[key][1]}
        if moved:
            self._alive(engine, now)
        running.update({key: (running[key][0], count) for key, count in moved.items()})

    def finish(self, engine: str, key: Key, tokens: int, now: float) -> None:
        """A rollout has ended with so many tokens."""
        self._alive(engine, now)
        self._freed[engine] = now
        begun, _ = self._running[engine].pop(key)
        self._ended = (self._ended[0] + now - begun, self._ended[1] + tokens)

    def leave(self, engine: str) -> None:
        """It is no more."""
        self._starting.pop(engine, None)
        self._running.pop(engine, None)
        self._freed.pop(engine, None)

    def hangs(self, engine: str, now: float) -> str | None:
        """Why an engine is taken to hang, in words; None when it is not."""
        if engine in self._starting:
            limit = max(START_SECONDS, SILENCES * self._longest)
            return f"not up after {limit:,.0f} s" if now - self._starting[engine] > limit else None
        running = self._running.get(engine)
        if not running:
            return None
        limit = SILENCES * self._longest
        if now - self._heard[engine] > limit:
            return f"no token for {limit:,.0f} s"
        deadline = self._deadline(now)
        for key, (begun, _) in running.items():
            if deadline is not None and now - max(begun, self._freed.get(engine, begun)) > deadline:
                return f"{'/'.join(map(str, key))} not done after {deadline:,.0f} s"
        return None

    def _alive(self, engine: str, now: float) -> None:
        self._longest = max(self._longest, now - self._heard[engine])
        self._heard[engine] = now

    def _deadline(self, now: float) -> float | None:
        """Seconds that a rollout may take; None before the first token."""
        seconds, tokens = self._ended
        for running in self._running.values():
            seconds += sum(now - begun for begun, _ in running.values())
            tokens += sum(count for _, count in running.values())
        return max(SLOWNESS * self._budget * seconds / tokens, SILENCES * self._longest) if tokens else None
